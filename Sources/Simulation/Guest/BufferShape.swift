/// How a driver lays out the buffers that it makes available for frames.
///
/// Sizes of a buffer are in bytes over all its descriptors, with the 12 bytes of the header before the frame.
public enum BufferShape: String, CaseIterable, Hashable, Sendable {
  /// As Linux with mergeable buffers: 12 + 1518, rounded up to 64, carved one after the other out of 32 KiB;
  /// the last of them takes what is left over. They lie across page boundaries.
  case linux
  /// One page.
  case page
  /// The header in a descriptor of its own, somewhere else than the frame.
  case headerApart = "header-apart"
  /// As Linux without mergeable buffers but with segmentation: the header, the rest of its page, 17 more pages
  /// in falling order. 19 descriptors.
  case big
  /// Too small for most frames: several are merged.
  case small
  /// Too small for nearly all frames.
  case tiny
  /// The header in three descriptors, the frame split at odd addresses; some neighbours touch, some do not.
  case awkward
  /// The header and two pieces for the frame, in an indirect table. Without the feature: a chain.
  case indirect
  /// As Linux without mergeable buffers or segmentation: 12 + 1518 to the byte, in one descriptor.
  case exact

  /// A buffer's size where a configuration gives none.
  public var defaultByteCount: Int {
    switch self {
    case .linux: return 1536
    case .page: return 4096
    case .headerApart, .awkward, .indirect, .exact: return NetHeaderRules.byteCount + 1518
    case .big: return NetHeaderRules.byteCount + 4064 + 17 * 4096
    case .small: return 256
    case .tiny: return 64
    }
  }

  /// The smallest and the largest size that a configuration may give.
  public var byteCounts: ClosedRange<Int> {
    switch self {
    case .linux: return 64...32768
    case .page, .headerApart, .indirect: return 64...65536
    case .big: return NetHeaderRules.byteCount + 4064...NetHeaderRules.byteCount + 4064 + 17 * 4096
    case .small, .tiny, .exact: return 16...65536
    case .awkward: return 64...65536
    }
  }

  /// Whether a buffer's descriptors are put in a table of their own where the device can follow.
  var prefersIndirect: Bool { self == .indirect }

  /// The pieces of memory from which buffers of this shape are cut.
  func slab(byteCount: Int) -> Slab {
    let header = NetHeaderRules.byteCount
    switch self {
    case .linux:
      let size = (byteCount + 63) / 64 * 64
      let chunk = 32768
      let count = chunk / size
      return Slab(
        byteCount: chunk, alignment: 4096, gap: 0,
        buffers: (0..<count).map { [.init($0 * size, $0 == count - 1 ? chunk - $0 * size : size)] })
    case .page:
      return Slab(byteCount: byteCount, alignment: byteCount % 4096 == 0 ? 4096 : 1, gap: 0, buffers: [[.init(0, byteCount)]])
    case .small, .tiny:
      return Slab(byteCount: byteCount, alignment: byteCount % 64 == 0 ? 64 : 1, gap: 64, buffers: [[.init(0, byteCount)]])
    case .exact:
      return Slab(byteCount: byteCount, alignment: 1, gap: 70, buffers: [[.init(0, byteCount)]])
    case .headerApart:
      let data = byteCount - header
      return Slab(byteCount: 64 + data, alignment: 1, gap: 32, buffers: [[.init(0, header), .init(64, data)]])
    case .indirect:
      let data = byteCount - header
      let front = max(data * 2 / 3, 1)
      return Slab(
        byteCount: 64 + data + 32, alignment: 1, gap: 32,
        buffers: [[.init(0, header), .init(64, front), .init(64 + front + 32, data - front)]])
    case .big:
      // Linux leaves 32 bytes in front of the frame, where a header of any length fits.
      let rest = byteCount - header - 4064
      let pages = (rest + 4095) / 4096
      let first = pages * 4096
      var buffer = [Slab.Piece(first, header), Slab.Piece(first + 32, 4064)]
      for page in 0..<pages { buffer.append(.init((pages - 1 - page) * 4096, min(4096, rest - page * 4096))) }
      return Slab(byteCount: first + 4096, alignment: 4096, gap: 0, buffers: [buffer])
    case .awkward:
      let rest = byteCount - header - 39
      let half = rest / 2 | 1
      var buffer: [Slab.Piece] = []
      var offset = 1
      for (length, gap) in zip([1, 5, 6, 1, 7, 31, half, rest - half], [0, 1, 3, 0, 1, 0, 5, 0]) {
        buffer.append(.init(offset, length))
        offset += length + gap
      }
      return Slab(byteCount: offset, alignment: 1, gap: 29, buffers: [buffer])
    }
  }
}

/// A piece of memory, and how it is cut into buffers.
struct Slab {
  /// One descriptor's part of a buffer, from the slab's first byte on.
  struct Piece: Hashable {
    let offset: Int
    let byteCount: Int
    init(_ offset: Int, _ byteCount: Int) {
      self.offset = offset
      self.byteCount = byteCount
    }
  }
  let byteCount: Int
  /// Of its first byte, in bytes.
  let alignment: Int
  /// Bytes that stay free between two slabs, at least.
  let gap: Int
  /// Each a chain's pieces, in the chain's order; all of one length.
  let buffers: [[Piece]]

  var piecesPerBuffer: Int { buffers[0].count }
  /// From one slab's first byte to the next one's.
  var stride: Int { (byteCount + gap + alignment - 1) / alignment * alignment }
}
