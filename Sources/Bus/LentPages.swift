internal import GuestMemory

/// The pages of a guest's window that a card can reach now: those in which something is lent, and no others.
///
/// One thread at a time: that of the paths that lend from the window, and after them the control side. Every lending costs
/// calls of the kernel's; that is what the strictness is paid with.
public final class LentPages {
  private static let pageBytes: UInt64 = 4096
  private let space: any IOAddressSpace
  private let start: IOVA
  private var map: MemoryMap
  /// By page's bus address: how many things in it are lent. 0: none any more, and it is still mapped.
  private var counts: [UInt64: Int] = [:]
  /// Pages that came to 0 since the last `flush`.
  private var idle: [UInt64] = []

  init(_ space: any IOAddressSpace, from start: IOVA, map: MemoryMap) { (self.space, self.start, self.map) = (space, start, map) }

  private func pages(_ address: IOVA, _ byteCount: Int) -> StrideTo<UInt64> {
    stride(from: address.rawValue & ~(Self.pageBytes - 1), to: address.rawValue + UInt64(byteCount), by: Int(Self.pageBytes))
  }

  /// Lets the card reach so many bytes from an address on. What is not in the window, our own, is reached anyway.
  ///
  /// A page that cannot be mapped stays out of reach: the card's access is refused then, as any other would be.
  public func lend(_ address: IOVA, byteCount: Int) {
    guard address >= start else { return }
    for page in pages(address, byteCount) {
      if let count = counts[page] {
        counts[page] = count + 1
      } else if let memory = unsafe host(page), (try? unsafe space.map(memory, at: IOVA(page), access: [.read, .write])) != nil {
        counts[page] = 1
      }
    }
  }

  private func host(_ page: UInt64) -> HostMemory? {
    let place = page - start.rawValue
    for region in map.regions {
      let first = region.guestStart.rawValue
      guard place >= first, place - first + Self.pageBytes <= UInt64(region.byteCount) else { continue }
      return unsafe HostMemory(base: region.base + Int(place - first), byteCount: Int(Self.pageBytes))
    }
    return nil
  }

  /// The same, the other way: out of reach from the next `flush` on, where nothing else in a page is lent.
  public func giveBack(_ address: IOVA, byteCount: Int) {
    guard address >= start else { return }
    for page in pages(address, byteCount) {
      guard let count = counts[page], count > 0 else { continue }
      counts[page] = count - 1
      if count == 1 { idle.append(page) }
    }
  }

  /// When it returns, pages in which nothing is lent cannot be reached any more.
  public func flush() {
    for page in idle where counts[page] == 0 {
      counts[page] = nil
      try? space.unmap(IOVA(page), byteCount: Int(Self.pageBytes))
    }
    idle.removeAll(keepingCapacity: true)
  }

  func replace(with map: MemoryMap) { self.map = map }
  /// Nothing is reached any more, lent or not.
  func removeAll() {
    for page in counts.keys { try? space.unmap(IOVA(page), byteCount: Int(Self.pageBytes)) }
    (counts, idle) = ([:], [])
  }
  /// Pages that can be reached now.
  public var count: Int { counts.count }
}
