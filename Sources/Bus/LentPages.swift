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
  private struct Page {
    /// How many things in it are lent.
    var lentCount = 0
    var isMapped = false
  }
  /// By bus address: those in which something is lent, or was until the next `flush`.
  private var known: [UInt64: Page] = [:]
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
      var entry = known[page] ?? Page()
      entry.lentCount += 1
      if !entry.isMapped, let memory = unsafe host(page) {
        entry.isMapped = (try? unsafe space.map(memory, at: IOVA(page), access: [.read, .write])) != nil
      }
      known[page] = entry
    }
  }

  private func host(_ page: UInt64) -> HostMemory? {
    let place = page - start.rawValue
    for region in map.regions {
      let first = region.guestStart.rawValue
      guard place >= first, place - first + Self.pageBytes <= UInt64(region.byteCount) else { continue }
      let offset = Int(place - first)
      return unsafe HostMemory(base: region.base + offset, byteCount: Int(Self.pageBytes), place: region.place(of: offset))
    }
    return nil
  }

  /// The same, the other way: out of reach from the next `flush` on, where nothing else in a page is lent.
  public func giveBack(_ address: IOVA, byteCount: Int) {
    guard address >= start else { return }
    for page in pages(address, byteCount) {
      guard let count = known[page]?.lentCount, count > 0 else { continue }
      known[page]?.lentCount = count - 1
      if count == 1 { idle.append(page) }
    }
  }

  /// When it returns, pages in which nothing is lent cannot be reached any more. One that the bus does not let go is asked
  /// for again at the next.
  public func flush() {
    var kept: [UInt64] = []
    for page in idle {
      guard let entry = known[page], entry.lentCount == 0 else { continue }
      if entry.isMapped, (try? space.unmap(IOVA(page), byteCount: Int(Self.pageBytes))) == nil {
        kept.append(page)
      } else {
        known[page] = nil
      }
    }
    idle = kept
  }

  func replace(with map: MemoryMap) { self.map = map }
  /// Nothing is reached any more, lent or not.
  func removeAll() {
    for (page, entry) in known where entry.isMapped { try? space.unmap(IOVA(page), byteCount: Int(Self.pageBytes)) }
    (known, idle) = ([:], [])
  }
  /// Pages that can be reached now.
  public var count: Int { known.values.count(where: \.isMapped) }
}
