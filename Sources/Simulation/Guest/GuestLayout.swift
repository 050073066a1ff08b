internal import GuestMemory
internal import Linux
internal import Virtio

/// Where a guest's rings and buffers lie in its memory. Computed before there is any.
struct GuestLayout {
  /// Where high memory begins.
  static let highStart: UInt64 = 4 << 30
  /// Where a PC's low memory has to end.
  static let lowLimit = 3 << 30

  /// Descriptors that one buffer takes when it is not indirect.
  let piecesPerBuffer: Int
  let buffersPerQueue: Int
  private(set) var rings: [SplitRingLayout] = []
  /// Each queue's indirect tables, one a buffer; nil if its shape has none.
  private(set) var indirectTables: [GuestAddress]?
  /// Each queue's buffers, piece after piece, `piecesPerBuffer` to a buffer.
  private(set) var pieces: [[GuestRange]] = []
  private(set) var lowByteCount = 0
  private(set) var highByteCount = 0
  private let configuration: SimulatedGuest.Configuration

  init(_ configuration: SimulatedGuest.Configuration) throws(GuestError) {
    self.configuration = configuration
    let (size, shape) = (configuration.ringSize, configuration.shape)
    guard (1...32768).contains(configuration.queueCount) else { throw .badQueueCount(configuration.queueCount) }
    guard (2...SplitRingLayout.largestSize).contains(size), size & (size - 1) == 0 else { throw .badRingSize(size) }
    guard (0...100).contains(configuration.placement.lowShare) else {
      throw .badShare(configuration.placement.lowShare)
    }
    let byteCount = configuration.bufferByteCount ?? shape.defaultByteCount
    guard shape.byteCounts.contains(byteCount) else { throw .badBufferSize(byteCount, allowed: shape.byteCounts) }
    let slab = shape.slab(byteCount: byteCount)
    piecesPerBuffer = slab.piecesPerBuffer
    guard piecesPerBuffer <= size else { throw .chainTooLong(descriptors: piecesPerBuffer, ringSize: size) }
    buffersPerQueue =
      (shape.prefersIndirect ? size : size / piecesPerBuffer) + max(configuration.spareBuffers, 0)
    var next = placeRings()
    if shape.prefersIndirect { next = placeIndirectTables(from: next) }
    placeBuffers(slab, from: next)
    guard lowByteCount <= Self.lowLimit else { throw .tooMuchLowMemory(byteCount: lowByteCount) }
  }

  /// From one buffer's indirect table to the next one's, in bytes.
  var indirectTableStride: Int { 16 * piecesPerBuffer }

  /// One ring after the other, from the second page on. 2.7 says how each part is aligned.
  private mutating func placeRings() -> Int {
    let size = configuration.ringSize
    var next = 4096
    func take(_ byteCount: Int, alignment: Int) -> GuestAddress {
      let start = Self.roundUp(next, alignment)
      next = start + byteCount
      return GuestAddress(UInt64(start))
    }
    for _ in 0..<configuration.queueCount {
      rings.append(
        SplitRingLayout(
          size: size,
          descriptorTable: take(SplitRingLayout.descriptorTableBytes(size), alignment: 64),
          availableRing: take(SplitRingLayout.availableRingBytes(size), alignment: 2),
          usedRing: take(SplitRingLayout.usedRingBytes(size), alignment: 64)))
    }
    return next
  }

  private mutating func placeIndirectTables(from start: Int) -> Int {
    let first = Self.roundUp(start, 16)
    let bytesPerQueue = buffersPerQueue * indirectTableStride
    indirectTables = (0..<configuration.queueCount).map { GuestAddress(UInt64(first + $0 * bytesPerQueue)) }
    return first + configuration.queueCount * bytesPerQueue
  }

  /// Slabs go to low and high memory in turn, as the share asks; each region's last slab ends where buffers may end.
  private mutating func placeBuffers(_ slab: Slab, from firstFree: Int) {
    let placement = configuration.placement
    let slabsPerQueue = (buffersPerQueue + slab.buffers.count - 1) / slab.buffers.count
    let slabs = slabsPerQueue * configuration.queueCount
    let lowSlabs = slabs * placement.lowShare / 100
    let unused = max(placement.unusedByteCount, 4096)
    let tail = placement.atRegionEnds ? 0 : unused
    let page = placement.pages.byteCount
    // A page more, for what alignment to the end costs.
    lowByteCount = Self.roundUp(firstFree + unused + tail + lowSlabs * slab.stride + 4096, page)
    highByteCount = Self.roundUp(unused + tail + (slabs - lowSlabs) * slab.stride + 4096, page)
    var (lowStride, highStride) = (slab.stride, slab.stride)
    if let wanted = placement.memoryByteCount {
      let ofLow = Self.roundUp(min(wanted / 100 * placement.lowShare, Self.lowLimit), page)
      lowStride += Self.widening(slab, count: lowSlabs, by: ofLow - lowByteCount)
      lowByteCount = max(lowByteCount, ofLow)
      let ofHigh = Self.roundUp(max(wanted - lowByteCount, 0), page)
      highStride += Self.widening(slab, count: slabs - lowSlabs, by: ofHigh - highByteCount)
      highByteCount = max(highByteCount, ofHigh)
    }

    func start(of number: Int, stride: Int, end: Int) -> Int {
      (end - tail - slab.byteCount) / slab.alignment * slab.alignment - number * stride
    }
    var (low, high) = (0, 0)
    for queue in 0..<configuration.queueCount {
      var queuePieces: [GuestRange] = []
      queuePieces.reserveCapacity(buffersPerQueue * piecesPerBuffer)
      for index in 0..<slabsPerQueue {
        // The n-th slab is low where the rounded share of n + 1 is one more than that of n.
        let number = queue * slabsPerQueue + index
        let isLow = (number + 1) * lowSlabs / slabs > number * lowSlabs / slabs
        let base: UInt64
        if isLow {
          base = UInt64(start(of: low, stride: lowStride, end: lowByteCount))
          low += 1
        } else {
          base = Self.highStart + UInt64(start(of: high, stride: highStride, end: highByteCount))
          high += 1
        }
        let wanted = min(slab.buffers.count, buffersPerQueue - index * slab.buffers.count)
        // The last ones of a slab first: it is they that lie at its end.
        for buffer in slab.buffers.suffix(wanted) {
          for piece in buffer {
            queuePieces.append(
              GuestRange(GuestAddress(base + UInt64(piece.offset)), count: UInt32(piece.byteCount)))
          }
        }
      }
      pieces.append(queuePieces)
    }
  }

  /// How much further apart so many slabs begin if there are so many bytes more for them.
  private static func widening(_ slab: Slab, count: Int, by byteCount: Int) -> Int {
    count > 0 && byteCount > 0 ? byteCount / count / slab.alignment * slab.alignment : 0
  }

  /// What belongs to no buffer, ring or table, in the order of addresses.
  func unusedRanges() -> [Range<UInt64>] {
    var taken: [Range<UInt64>] = []
    func take(_ start: GuestAddress, _ byteCount: Int) {
      taken.append(start.rawValue..<start.rawValue + UInt64(byteCount))
    }
    for ring in rings {
      take(ring.descriptorTable, SplitRingLayout.descriptorTableBytes(ring.size))
      take(ring.availableRing, SplitRingLayout.availableRingBytes(ring.size))
      take(ring.usedRing, SplitRingLayout.usedRingBytes(ring.size))
    }
    for table in indirectTables ?? [] { take(table, buffersPerQueue * indirectTableStride) }
    for queue in pieces { for piece in queue { take(piece.start, Int(piece.count)) } }
    taken.sort { $0.lowerBound < $1.lowerBound }

    var free: [Range<UInt64>] = []
    for region in [0..<UInt64(lowByteCount), Self.highStart..<Self.highStart + UInt64(highByteCount)] {
      var next = region.lowerBound
      for range in taken where region.contains(range.lowerBound) {
        precondition(range.lowerBound >= next && range.upperBound <= region.upperBound, "things overlap in a guest")
        if range.lowerBound > next { free.append(next..<range.lowerBound) }
        next = range.upperBound
      }
      if next < region.upperBound { free.append(next..<region.upperBound) }
    }
    return free
  }

  static func roundUp(_ value: Int, _ unit: Int) -> Int { (value + unit - 1) / unit * unit }
}
