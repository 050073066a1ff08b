import GuestMemory
@testable import Simulation
import Testing
import Virtio

@Suite struct GuestLayoutTests {
  @Test(arguments: [
    (BufferShape.linux, 1), (.page, 1), (.headerApart, 2), (.big, 19), (.small, 1), (.tiny, 1), (.awkward, 8),
    (.indirect, 3), (.exact, 1),
  ]) func `a shape has its number of descriptors and its size`(shape: BufferShape, descriptors: Int) throws {
    let (_, device) = try startGuest { $0.shape = shape }
    let buffer = try #require(device.take())
    #expect(buffer.parts.count == descriptors)
    if shape == .linux {
      #expect(buffer.byteCount == 1536 || buffer.byteCount == 2048)
    } else {
      #expect(buffer.byteCount == shape.defaultByteCount)
    }
    #expect(shape == BufferShape(rawValue: shape.rawValue))
  }

  @Test func `as many buffers are posted as the ring has room for`() throws {
    for (shape, count) in [(BufferShape.linux, 256), (.big, 13), (.awkward, 32), (.headerApart, 128), (.indirect, 256)] {
      #expect(try startGuest { $0.shape = shape }.1.availableCount == count)
    }
    // Without the feature, an indirect table becomes a chain.
    #expect(try startGuest(offered: .version1) { $0.shape = .indirect }.1.availableCount == 85)
  }

  @Test func `Linux's buffers follow one another, and the last of 32 KiB takes the rest`() throws {
    let (_, device) = try startGuest()
    var byStart: [UInt64: UInt32] = [:]
    while let buffer = device.take() { byStart[buffer.parts[0].start.rawValue] = buffer.parts[0].count }
    #expect(byStart.count == 256)
    for (start, count) in byStart {
      // Where a buffer ends, the next begins; the longer one ends a chunk, and with it a page.
      if count == 1536 { #expect(byStart[start + 1536] != nil) } else { #expect((start + 2048) % 4096 == 0) }
    }
    #expect(Set(byStart.values) == [1536, 2048])
    #expect(byStart.values.filter { $0 == 2048 }.count == 13)
    let crossing = byStart.filter { $0.key / 4096 != ($0.key + UInt64($0.value) - 1) / 4096 }
    #expect(!crossing.isEmpty)
  }

  @Test(arguments: BufferShape.allCases, [0, 50, 100])
  func `buffers are spread as asked, and the last ends with its region`(shape: BufferShape, share: Int) throws {
    let (guest, device) = try startGuest {
      $0.shape = shape
      $0.ringSize = 1024
      $0.placement.lowShare = share
    }
    var parts: [GuestRange] = []
    var (low, all) = (0, 0)
    while let buffer = device.take() {
      parts += buffer.parts
      all += 1
      if buffer.parts[0].start.rawValue < 4 << 30 { low += 1 }
    }
    #expect(abs(low * 100 - all * share) <= all * 4)
    for (region, isUsed) in zip(device.map.regions, [share > 0, share < 100]) where isUsed {
      let end = region.guestStart.rawValue + UInt64(region.byteCount)
      // The highest page of a big buffer is its first; 32 bytes of it stay free in front, none behind.
      #expect(parts.contains { $0.start.rawValue + UInt64($0.count) == end }, "\(shape)")
    }
    #expect(guest.verifyUntouched())
  }

  @Test(arguments: [BufferShape.linux, .page, .exact, .headerApart], [0, 50, 100])
  func `buffers are spread over all of a larger memory`(shape: BufferShape, share: Int) throws {
    let wanted = 64 << 20
    let (guest, device) = try startGuest {
      $0.shape = shape
      $0.placement.lowShare = share
      $0.placement.memoryByteCount = wanted
    }
    let regions = device.map.regions
    #expect(regions.reduce(0) { $0 + $1.byteCount } >= wanted)
    var starts: [UInt64] = []
    while let buffer = device.take() { starts.append(buffer.parts[0].start.rawValue) }
    for region in regions where region.byteCount > 1 << 20 {
      // The first lies in the first quarter of the region, the last in its last, and nothing outside of it.
      let own = starts.filter { ($0 >= 4 << 30) == (region.guestStart.rawValue >= 4 << 30) }.map { $0 - region.guestStart.rawValue }
      let quarter = UInt64(region.byteCount) / 4
      let (least, most) = (try #require(own.min()), try #require(own.max()))
      #expect(least < quarter && most > 3 * quarter && most < UInt64(region.byteCount), "\(shape) \(share)")
    }
    #expect(guest.verifyUntouched())
  }

  @Test func `buffers keep away from a region's end if asked`() throws {
    let (_, device) = try startGuest { $0.placement.atRegionEnds = false }
    let ends = device.map.regions.map { $0.guestStart.rawValue + UInt64($0.byteCount) }
    while let buffer = device.take() {
      for part in buffer.parts { #expect(!ends.contains(part.start.rawValue + UInt64(part.count))) }
    }
  }

  @Test(arguments: [2, 256, 32768]) func `a ring's parts are aligned as the specification asks, in low memory`(size: Int) throws {
    var configuration = SimulatedGuest.Configuration()
    configuration.ringSize = size
    configuration.queueCount = 3
    configuration.shape = .tiny
    let guest = try SimulatedGuest(configuration)
    for queue in 0..<3 {
      let ring = guest.layout(queue: queue)
      #expect(ring.size == size)
      #expect(ring.descriptorTable.rawValue % 16 == 0 && ring.availableRing.rawValue % 2 == 0)
      #expect(ring.usedRing.rawValue % 4 == 0 && ring.usedRing.rawValue < 3 << 30)
    }
  }

  @Test func `a size can be given, within what the shape allows`() throws {
    for shape in BufferShape.allCases {
      for size in [shape.byteCounts.lowerBound, shape.byteCounts.upperBound] {
        let (guest, device) = try startGuest {
          $0.shape = shape
          $0.bufferByteCount = size
          $0.ringSize = 32
        }
        let buffer = try #require(device.take())
        #expect(buffer.byteCount >= size)
        #expect(shape == .linux || buffer.byteCount == size)
        #expect(device.complaints.isEmpty && guest.verifyUntouched(), "\(shape) \(size): \(device.complaints)")
      }
      #expect(throws: GuestError.badBufferSize(shape.byteCounts.lowerBound - 1, allowed: shape.byteCounts)) {
        try startGuest {
          $0.shape = shape
          $0.bufferByteCount = shape.byteCounts.lowerBound - 1
        }
      }
    }
  }

  @Test(arguments: [0, 1, 3, 65536]) func `a ring's size has to be a power of two from 2 to 32768`(size: Int) {
    #expect(throws: GuestError.badRingSize(size)) { try startGuest { $0.ringSize = size } }
  }

  @Test func `what cannot be laid out is refused`() {
    #expect(throws: GuestError.badQueueCount(0)) { try startGuest { $0.queueCount = 0 } }
    #expect(throws: GuestError.badShare(101)) { try startGuest { $0.placement.lowShare = 101 } }
    #expect(throws: GuestError.chainTooLong(descriptors: 19, ringSize: 16)) {
      try startGuest { $0.shape = .big ; $0.ringSize = 16 }
    }
    #expect(performing: {
      try startGuest { $0.shape = .page ; $0.ringSize = 32768 ; $0.queueCount = 32 ; $0.placement.lowShare = 100 }
    }, throws: { error in
      if case GuestError.tooMuchLowMemory = error { return true } else { return false }
    })
  }

  @Test func `one piece of a frame is used where it lies, several are put together`() {
    var assembly = FrameAssembly()
    let (first, second): ([UInt8], [UInt8]) = ([1, 2, 3], [4, 5])
    unsafe first.withUnsafeBytes { first in
      unsafe second.withUnsafeBytes { second in
        #expect(unsafe assembly.append(first))
        #expect(unsafe assembly.frame.baseAddress == first.baseAddress)
        #expect(unsafe assembly.append(second))
        #expect(unsafe [UInt8](assembly.frame) == [1, 2, 3, 4, 5])
      }
    }
    assembly.removeAll()
    #expect(unsafe assembly.frame.count == 0)
  }
}
