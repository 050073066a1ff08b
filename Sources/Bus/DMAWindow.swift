public import GuestMemory

/// A guest's memory on the bus: guest address `a` is bus address `base + a`, for every region and nothing else.
///
/// Owner: the control thread, which makes it, changes it and closes it. `pages` belong to the thread that polls the guest's paths. What
/// concerns both is done in steps: see `Change` and `close`.
public final class DMAWindow {
  /// Each guest has a window of so many bytes, 2⁴⁰ where the bus has as many addresses; number 0 is ours.
  public static let span: UInt64 = 1 << 40

  public let base: IOVA
  public private(set) var map: MemoryMap
  private let space: any IOAddressSpace
  private let span: UInt64
  /// Nil: every region is mapped as a whole. Else nothing is but what paths lend.
  public let pages: LentPages?
  private var mapped: [MemoryRegion] = []
  private var isClosed = false

  /// Maps every region, or none. The device may read (transmit) and write (receive).
  ///
  /// - Parameters:
  ///   - span: bytes between two windows, the same for all of an address space.
  ///   - isStrict: nothing is mapped but what paths lend from it, by `pages`.
  public init(
    number: Int, map: MemoryMap, in space: any IOAddressSpace, span: UInt64 = DMAWindow.span, isStrict: Bool = false
  ) throws(IOAddressSpaceError) {
    precondition(number > 0)
    self.span = span
    pages = isStrict ? LentPages(space, from: IOVA(UInt64(number) * span), map: map) : nil
    base = IOVA(UInt64(number) * span)
    self.map = map
    self.space = space
    try check(map.regions)
    try add(map.regions)
  }

  /// Whether regions lie inside the window.
  private func check(_ regions: [MemoryRegion]) throws(IOAddressSpaceError) {
    for region in regions {
      guard region.guestStart.rawValue < span, UInt64(region.byteCount) <= span - region.guestStart.rawValue
      else { throw .outOfRange(base, byteCount: region.byteCount) }
    }
  }

  /// Maps regions, or none of them.
  private func add(_ regions: [MemoryRegion]) throws(IOAddressSpaceError) {
    var added: [MemoryRegion] = []
    do throws(IOAddressSpaceError) {
      for region in regions {
        if pages == nil {
          try unsafe space.map(
            HostMemory(base: region.base, byteCount: region.byteCount, place: region.place()), at: address(of: region), access: [.read, .write])
        }
        added.append(region)
      }
    } catch {
      _ = unmap(added)
      throw error
    }
    mapped += added
  }

  /// Unmaps all of some regions. One that fails is kept for good (`UnmapFailures`), and the others are unmapped all the same; answers the
  /// first error.
  private func unmap(_ regions: [MemoryRegion]) -> IOAddressSpaceError? {
    guard pages == nil else { return nil }
    var first: IOAddressSpaceError?
    for region in regions {
      do throws(IOAddressSpaceError) { try space.unmap(address(of: region), byteCount: region.byteCount) } catch {
        space.unmapFailures.record(error, at: address(of: region), byteCount: region.byteCount, keeping: region)
        if first == nil { first = error }
      }
    }
    return first
  }

  private func address(of region: MemoryRegion) -> IOVA { base + region.guestStart.rawValue }

  // MARK: Another map

  /// Another map that a window goes over to, in three steps, so that no thread ever has a region that is not mapped: `beginChange` on the
  /// control thread maps what comes; `adopt` on the thread that polls the paths goes over to it, together with the paths' own
  /// `replaceMap`; `finish` on the control thread unmaps what goes.
  ///
  /// Where a region goes, the caller has stopped every path before, for another may come at its addresses: then what comes is mapped by
  /// `finish`.
  public final class Change {
    fileprivate let map: MemoryMap
    fileprivate let added: [MemoryRegion]
    fileprivate let removed: [MemoryRegion]
    fileprivate let pages: LentPages?
    fileprivate var isAdopted = false
    fileprivate init(map: MemoryMap, added: [MemoryRegion], removed: [MemoryRegion], pages: LentPages?) {
      (self.map, self.added, self.removed, self.pages) = (map, added, removed, pages)
    }

    /// The second step: on the thread that polls the paths.
    public func adopt() {
      pages?.replace(with: map)
      isAdopted = true
    }
  }

  /// The first step. Regions that stay, the same objects, are left alone.
  ///
  /// - Throws: if a region cannot be mapped: the window is as it was.
  public func beginChange(to map: MemoryMap) throws(IOAddressSpaceError) -> Change {
    if isClosed { throw .refused(base, byteCount: 0, "the window was closed") }
    let (before, after) = (Set(mapped.map(ObjectIdentifier.init)), Set(map.regions.map(ObjectIdentifier.init)))
    let added = map.regions.filter { !before.contains(ObjectIdentifier($0)) }
    let removed = mapped.filter { !after.contains(ObjectIdentifier($0)) }
    try check(added)
    if removed.isEmpty { try add(added) }
    return Change(map: map, added: added, removed: removed, pages: pages)
  }

  /// The third step, after `adopt`.
  ///
  /// - Throws: if memory that goes could not be unmapped: it is kept for good. Or if what comes could not be mapped: then the window has
  ///   what is in both maps. Either way it is only to be closed.
  public func finish(_ change: Change) throws(IOAddressSpaceError) {
    precondition(change.isAdopted, "a change that the paths' thread has not adopted")
    if !change.removed.isEmpty {
      let gone = Set(change.removed.map(ObjectIdentifier.init))
      mapped.removeAll { gone.contains(ObjectIdentifier($0)) }
      if let error = unmap(change.removed) ?? pages?.failure?.error { throw error }
      try add(change.added)
    }
    map = change.map
  }

  /// The three steps in one, for who polls the paths on this thread, or has none.
  public func replace(with map: MemoryMap) throws(IOAddressSpaceError) {
    let change = try beginChange(to: map)
    change.adopt()
    try finish(change)
  }

  /// Takes one region off the bus, as when a front-end removes it. The caller has made sure that no buffer in it is lent; a device that
  /// writes there all the same faults.
  ///
  /// - Throws: if it could not be unmapped: it is kept for good.
  public func remove(_ region: MemoryRegion) throws(IOAddressSpaceError) {
    guard let index = mapped.firstIndex(where: { $0 === region }) else { throw .notMapped(address(of: region)) }
    mapped.remove(at: index)
    if let error = unmap([region]) { throw error }
  }

  // MARK: The end

  /// Takes everything off the bus, for good. When it returns, the device cannot reach the guest.
  ///
  /// Precondition: `pages` were closed by their own thread.
  ///
  /// - Throws: if something could not be unmapped, now or before: it is kept for good, and the device's bus mastering is off.
  public func close() throws(IOAddressSpaceError) {
    precondition(pages?.isClosed ?? true, "pages that their thread has not closed")
    isClosed = true
    let regions = mapped
    mapped = []
    if let error = unmap(regions) ?? pages?.failure?.error { throw error }
  }

  // What fails is recorded, and kept.
  deinit { _ = unmap(mapped) }
}
