internal import GuestMemory

/// The three areas of a virtqueue in guest memory, each checked once to lie wholly in a region of the map that is held.
@safe struct RingAreas {
  struct Area {
    var start: GuestAddress
    var byteCount: Int
    var alignment: Int
    var range: GuestRange { GuestRange(start, count: UInt32(byteCount)) }
  }
  let areas: [Area]
  /// Where each of them begins in this process. Valid while this is held.
  let bases: [UnsafeMutableRawPointer]
  private var map: MemoryMap

  init(_ areas: [Area], in view: inout MemoryView) throws(VirtqueueError) {
    var bases: [UnsafeMutableRawPointer] = unsafe []
    for area in areas {
      guard area.start.rawValue % UInt64(area.alignment) == 0 else {
        throw .misaligned(area.start, alignment: area.alignment)
      }
      guard let slice = view.slice(area.range) else { throw .outsideMemory(area.range) }
      unsafe bases.append(slice.base)
    }
    for (i, a) in areas.enumerated() {
      for b in areas[(i + 1)...]
      where a.start.rawValue < b.start.rawValue + UInt64(b.byteCount)
        && b.start.rawValue < a.start.rawValue + UInt64(a.byteCount) {
        throw .overlap(a.start, b.start)
      }
    }
    self.areas = areas
    unsafe self.bases = bases
    map = view.map
  }

  /// Of a queue that nobody uses: no areas, and somewhere to point to.
  init(none view: borrowing MemoryView) {
    areas = []
    unsafe bases = [UnsafeMutableRawPointer](repeating: Self.nowhere, count: 3)
    map = view.map
  }
  nonisolated(unsafe) private static let nowhere: UnsafeMutableRawPointer = {
    let bytes = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 16)
    unsafe bytes.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
    return unsafe bytes
  }()

  /// Holds another map, in which every area must be where it is now.
  mutating func hold(_ map: MemoryMap) throws(VirtqueueError) {
    var view = MemoryView(map)
    for (n, area) in areas.enumerated() {
      guard let slice = view.slice(area.range), unsafe slice.base == bases[n] else { throw .moved(area.start) }
    }
    self.map = map
  }
}
