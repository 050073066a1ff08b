public import GuestMemory

/// A guest's memory on the bus: guest address `a` is bus address `base + a`, for every region and nothing else.
///
/// A class: it is shared by the paths of a guest, and taken down once, after all of them are quiet.
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
    do throws(IOAddressSpaceError) { for region in map.regions { try add(region) } } catch {
      close()
      throw error
    }
  }

  private func add(_ region: MemoryRegion) throws(IOAddressSpaceError) {
    guard region.guestStart.rawValue < span, UInt64(region.byteCount) <= span - region.guestStart.rawValue
    else { throw .outOfRange(base, byteCount: region.byteCount) }
    if pages == nil { try put(region) }
    mapped.append(region)
  }
  private func put(_ region: MemoryRegion) throws(IOAddressSpaceError) {
    try unsafe space.map(
      HostMemory(base: region.base, byteCount: region.byteCount, place: region.place()), at: address(of: region), access: [.read, .write])
  }
  private func takeOff(_ region: MemoryRegion) throws(IOAddressSpaceError) {
    if pages == nil { try space.unmap(address(of: region), byteCount: region.byteCount) }
  }

  /// The guest's memory is another one from now on: regions that are not in it are taken off the bus, further ones
  /// are mapped, and those that stay (the same objects) are left alone. Who calls has made sure that no buffer in a
  /// region that goes is lent.
  ///
  /// - Throws: if a region cannot be mapped. Then the window has what was in both maps, and none of what is only in the
  ///   new one: `map` is what it was.
  public func replace(with map: MemoryMap) throws(IOAddressSpaceError) {
    let wanted = Set(map.regions.map(ObjectIdentifier.init))
    let stays = mapped.filter { wanted.contains(ObjectIdentifier($0)) }
    let staying = Set(stays.map(ObjectIdentifier.init))
    for region in mapped where !staying.contains(ObjectIdentifier(region)) {
      try? takeOff(region)
    }
    mapped = stays
    do throws(IOAddressSpaceError) {
      for region in map.regions where !staying.contains(ObjectIdentifier(region)) { try add(region) }
    } catch {
      for region in mapped.dropFirst(stays.count) { try? takeOff(region) }
      mapped = stays
      throw error
    }
    self.map = map
    pages?.replace(with: map)
  }

  deinit { close() }

  private func address(of region: MemoryRegion) -> IOVA { base + region.guestStart.rawValue }

  /// Takes one region off the bus, as when a front-end removes it. Who calls has made sure that no buffer in it
  /// is lent; a device that writes there all the same faults.
  public func remove(_ region: MemoryRegion) throws(IOAddressSpaceError) {
    guard let index = mapped.firstIndex(where: { $0 === region }) else { throw .notMapped(address(of: region)) }
    try takeOff(region)
    mapped.remove(at: index)
  }

  /// Takes everything off the bus. When it returns, the device cannot reach the guest.
  public func close() {
    for region in mapped { try? takeOff(region) }
    pages?.removeAll()
    mapped = []
  }
}
