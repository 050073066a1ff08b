internal import GuestMemory
internal import Linux

/// The pages of a guest's window that a card can reach now: those in which something is lent, and no others.
///
/// Owner: the thread that polls the guest's paths. It is made by the control thread and belongs to the first thread that uses it
/// from then on, with its map, until the last reference goes; the control thread has `DMAWindow.Change.adopt` and `close` called
/// there. Every lending costs calls of the kernel's; that is what the strictness is paid with.
public final class LentPages {
  private static let pageBytes: UInt64 = 4096
  private let space: any IOAddressSpace
  private let start: IOVA
  private var thread = ThreadConfinement()
  private var map: MemoryMap
  /// Pages that are mapped, by bus address, and how many things in each are lent. One with none waits for `flush`.
  private var lentCounts: [UInt64: Int] = [:]
  /// Pages that came to 0 since the last `flush`.
  private var idle: [UInt64] = []
  /// Pages that could not be unmapped.
  private var stuck: Set<UInt64> = []

  /// The first page that could not be unmapped: the card may still reach it. From then on nothing is lent. See `UnmapFailures` for
  /// what else follows.
  public private(set) var failure: (address: IOVA, error: IOAddressSpaceError)?
  /// Nothing is reached, and nothing is lent any more.
  public private(set) var isClosed = false

  init(_ space: any IOAddressSpace, from start: IOVA, map: MemoryMap) { (self.space, self.start, self.map) = (space, start, map) }
  // Nobody has it any more, so it is any thread's.
  deinit { unmapAll() }

  private func pages(_ address: IOVA, _ byteCount: Int) -> StrideTo<UInt64> {
    stride(from: address.rawValue & ~(Self.pageBytes - 1), to: address.rawValue + UInt64(byteCount), by: Int(Self.pageBytes))
  }

  /// Lets the card reach so many bytes from an address on. What is not in the window, our own, is reached anyway.
  ///
  /// - Returns: False if a page of it could not be mapped, or is no page of the guest's: then nothing is lent.
  public func lend(_ address: IOVA, byteCount: Int) -> Bool {
    guard address >= start else { return true }
    thread.check()
    guard failure == nil, !isClosed else { return false }
    for page in pages(address, byteCount) where !hold(page) {
      for held in pages(address, byteCount) where held < page { release(held) }
      flush()
      return false
    }
    return true
  }

  private func hold(_ page: UInt64) -> Bool {
    if let count = lentCounts[page] {
      lentCounts[page] = count + 1
      return true
    }
    guard let region = region(of: page) else { return false }
    let offset = Int(page - start.rawValue - region.guestStart.rawValue)
    do throws(IOAddressSpaceError) {
      try unsafe space.map(
        HostMemory(base: region.base + offset, byteCount: Int(Self.pageBytes), place: region.place(of: offset)), at: IOVA(page),
        access: [.read, .write])
    } catch { return false }
    lentCounts[page] = 1
    return true
  }

  /// The region that a whole page lies in; nil: none.
  private func region(of page: UInt64) -> MemoryRegion? {
    let place = page - start.rawValue
    // They are in the order of their addresses: the last that does not begin behind it.
    var (low, high) = (0, map.regions.count)
    while low < high {
      let middle = (low + high) / 2
      if map.regions[middle].guestStart.rawValue <= place { low = middle + 1 } else { high = middle }
    }
    guard low > 0 else { return nil }
    let region = map.regions[low - 1]
    let offset = place - region.guestStart.rawValue
    return offset < UInt64(region.byteCount) && UInt64(region.byteCount) - offset >= Self.pageBytes ? region : nil
  }

  /// The other way: out of reach from the next `flush` on, where nothing else in a page is lent.
  public func giveBack(_ address: IOVA, byteCount: Int) {
    guard address >= start else { return }
    thread.check()
    for page in pages(address, byteCount) { release(page) }
  }
  private func release(_ page: UInt64) {
    guard let count = lentCounts[page], count > 0 else { return }
    lentCounts[page] = count - 1
    if count == 1 { idle.append(page) }
  }

  /// When it returns and `failure` is nil, pages in which nothing is lent cannot be reached any more.
  public func flush() {
    thread.check()
    for page in idle where lentCounts[page] == 0 { unmap(page) }
    idle.removeAll(keepingCapacity: true)
  }

  /// Precondition: the page is mapped.
  private func unmap(_ page: UInt64) {
    lentCounts[page] = nil
    do throws(IOAddressSpaceError) { try space.unmap(IOVA(page), byteCount: Int(Self.pageBytes)) } catch {
      guard let region = region(of: page) else { preconditionFailure("a page of no region is mapped") }
      stuck.insert(page)
      if failure == nil { failure = (IOVA(page), error) }
      space.unmapFailures.record(error, at: IOVA(page), byteCount: Int(Self.pageBytes), keeping: region)
    }
  }
  private func unmapAll() {
    for page in lentCounts.keys { unmap(page) }
    idle = []
  }

  /// Goes on with another map. Nothing of a region that goes is reached any more.
  func replace(with map: MemoryMap) {
    thread.check()
    let staying = Set(map.regions.map(ObjectIdentifier.init))
    for page in lentCounts.keys where region(of: page).map({ staying.contains(ObjectIdentifier($0)) }) != true { unmap(page) }
    self.map = map
  }

  /// Nothing is reached any more, lent or not, but for what `failure` says.
  public func close() {
    thread.check()
    isClosed = true
    unmapAll()
  }

  /// Pages that can be reached now.
  public var count: Int { lentCounts.count + stuck.count }
}
