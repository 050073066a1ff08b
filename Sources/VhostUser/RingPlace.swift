internal import GuestMemory
internal import Virtio

/// Finds a ring in the guest's memory: from where the front-end sees its parts to where the guest does, each wholly in
/// one region, aligned, and apart from the others. virtio 1.3, 2.7 and 2.8; vhost-user, "A vring address description".
enum RingPlace {
  /// Bytes and alignment of the parts.
  static func shape(isPacked: Bool, size: Int) -> [(part: RingProblem.Part, byteCount: Int, alignment: Int)] {
    isPacked
      ? [(.descriptors, 16 * size, 16), (.driver, 4, 4), (.device, 4, 4)]
      : [(.descriptors, 16 * size, 16), (.driver, 6 + 2 * size, 2), (.device, 6 + 8 * size, 4)]
  }

  static func isSize(_ size: UInt32, isPacked: Bool) -> Bool {
    (1...32768).contains(size) && (isPacked || size & (size - 1) == 0)
  }

  static func find(
    _ address: VringAddress, size: Int, isPacked: Bool, in map: MemoryMap
  ) throws(RingProblem) -> RingLayout {
    var found: [(part: RingProblem.Part, start: UInt64, end: UInt64)] = []
    let places = [address.descriptor, address.available, address.used]
    for (piece, place) in zip(shape(isPacked: isPacked, size: size), places) {
      guard let start = map.guestAddress(of: place, byteCount: UInt64(piece.byteCount)) else {
        throw .outsideMemory(piece.part, place, byteCount: piece.byteCount)
      }
      guard start.rawValue % UInt64(piece.alignment) == 0 else {
        throw .misaligned(piece.part, start, alignment: piece.alignment)
      }
      // No overflow: the region that it lies in ends inside the address space.
      let end = start.rawValue + UInt64(piece.byteCount)
      if let other = found.first(where: { start.rawValue < $0.end && $0.start < end }) {
        throw .overlap(other.part, piece.part)
      }
      found.append((piece.part, start.rawValue, end))
    }
    return RingLayout(
      size: size, descriptorArea: GuestAddress(found[0].start), driverArea: GuestAddress(found[1].start),
      deviceArea: GuestAddress(found[2].start))
  }
}
