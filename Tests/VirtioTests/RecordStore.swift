import Glibc
import Linux
import Virtio

/// A record where it is kept, and its bytes as the keeper of that sees them: a file of its own, or a front-end's region for
/// two rings, of which the second is ours.
@safe struct RecordStore: ~Copyable {
  enum Kind: CaseIterable { case file, region }
  let kind: Kind
  let ringSize: Int
  private let file: MemoryFile
  private let view: Mapping

  init(_ kind: Kind, ringSize: Int) throws {
    let byteCount = kind == .file ? RingRecord.byteCount(ringSize: ringSize) : InflightRegion.byteCount(ringCount: 2, ringSize: ringSize)
    let file = try MemoryFile(name: "record", byteCount: byteCount)
    let view = try Mapping(of: file.descriptor, byteCount: file.byteCount)
    // A region has its shape from the start.
    if kind == .region {
      let mapping = try Mapping(of: file.descriptor, byteCount: file.byteCount)
      _ = InflightRegion(mapping: mapping, ringCount: 2, ringSize: ringSize)
    }
    (self.kind, self.ringSize) = (kind, ringSize)
    self.file = file
    self.view = view
  }

  func open() throws -> RingRecord {
    var address: UInt = 0
    return try open(&address)
  }
  /// - Parameter address: set to where the record lies in this process.
  func open(_ address: inout UInt) throws -> RingRecord {
    let mapping = try Mapping(of: file.descriptor, byteCount: file.byteCount)
    address = unsafe UInt(bitPattern: mapping.base) + UInt(places.lowerBound)
    if kind == .file { return RingRecord(mapping: mapping) }
    return InflightRegion(mapping: mapping, ringCount: 2, ringSize: ringSize).record(ring: 1, size: ringSize)!
  }

  /// Of the record in its file.
  private var places: Range<Int> {
    // Behind a head of 64 bytes and the first ring's, each of a multiple of 64.
    let start = kind == .file ? 0 : 64 + (64 + 10 * ringSize + 63) / 64 * 64
    return start..<start + 64 + 10 * ringSize
  }
  private var whole: UnsafeMutableRawBufferPointer { unsafe UnsafeMutableRawBufferPointer(start: view.base, count: view.byteCount) }
  var bytes: [UInt8] { unsafe Array(whole[places]) }
  func set(_ bytes: [UInt8]) { unsafe UnsafeMutableRawBufferPointer(rebasing: whole[places]).copyBytes(from: bytes) }

  /// Writes at random to all of the file, for as long as there is a device.
  func scribble() {
    var random: UInt64 = 0x9E37_79B9_7F4A_7C15
    writeForEver { _ in
      random ^= random << 13
      random ^= random >> 7
      random ^= random << 17
      return (Int(truncatingIfNeeded: (random >> 8) % UInt64(view.byteCount)), UInt8(truncatingIfNeeded: random))
    }
  }
  /// Writes one and the other to a byte of the record, by turns.
  func flip(_ offset: Int, between one: UInt8, and other: UInt8) {
    writeForEver { turn in (places.lowerBound + offset, turn & 1 == 0 ? one : other) }
  }
  private func writeForEver(_ next: (_ turn: UInt64) -> (place: Int, byte: UInt8)) {
    var turn: UInt64 = 0
    while turn & 0xFFFF != 0 || getppid() > 1 {
      turn &+= 1
      let (place, byte) = next(turn)
      unsafe view.base.storeBytes(of: byte, toByteOffset: place, as: UInt8.self)
    }
  }
}
