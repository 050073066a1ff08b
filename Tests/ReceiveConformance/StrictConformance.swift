import Bus
import Datapath
import GuestMemory
import Intel
import Linux
import NIC

/// A bus that does not do all that is asked of it.
private final class FailingSpace: IOAddressSpace {
  private let base: any IOAddressSpace
  let unmapFailures = UnmapFailures()
  /// Calls so far, and which of them fails, counted from 1.
  private var mapCalls = 0
  private var unmapCalls = 0
  var failingMap = 0
  var failingUnmap = 0
  init(_ base: any IOAddressSpace) { self.base = base }

  func map(_ memory: HostMemory, at address: IOVA, access: DMAAccess) throws(IOAddressSpaceError) {
    mapCalls += 1
    if mapCalls == failingMap { throw .limitReached }
    unsafe try base.map(memory, at: address, access: access)
  }
  func unmap(_ address: IOVA, byteCount: Int) throws(IOAddressSpaceError) {
    unmapCalls += 1
    if unmapCalls == failingUnmap { throw .refused(address, byteCount: byteCount, "a call that a test makes fail") }
    try base.unmap(address, byteCount: byteCount)
  }
}

/// What a strict queue over a card's promises where the bus fails.
enum StrictConformance {
  private static let start: UInt64 = 1 << 30
  private static let page = 4096
  /// Enough that what strangers put on a wire does not use them up.
  private static let pageCount = 60

  /// A guest's memory in a strict window, and a queue that runs over it.
  private final class Bench {
    let subject: any ConformanceSubject
    let space: FailingSpace
    let region: MemoryRegion
    let window: DMAWindow
    let pages: LentPages
    var queue: ProtectedReceiveQueue<IntelReceiveQueue>

    init(_ subject: any ConformanceSubject) throws {
      try ReceiveConformance.begin(subject)
      self.subject = subject
      space = FailingSpace(subject.space)
      region = MemoryRegion(at: GuestAddress(start), mapping: try Mapping(anonymousBytes: pageCount * page))
      unsafe region.base.initializeMemory(as: UInt8.self, repeating: TestQueue.canary, count: pageCount * page)
      window = try DMAWindow(number: 1, map: try MemoryMap([region]), in: space, isStrict: true)
      guard let pages = window.pages else { throw ConformanceFailure("a strict window has pages") }
      self.pages = pages
      var base = try subject.card.makeReceiveQueue(subject.card.queueIndex(pool: 0, queue: 0), ringSize: 64, bufferByteCount: 2048)
      try base.start()
      queue = ProtectedReceiveQueue(base, pages)
    }
    func post(_ n: Int) -> Bool { queue.post(window.base + (start + UInt64(n * page))) }
    func bytes(_ n: Int, _ count: Int) -> [UInt8] { unsafe Array(UnsafeRawBufferPointer(start: region.base + n * page, count: count)) }
    func isUntouched(_ n: Int) -> Bool { bytes(n, page).allSatisfy { $0 == TestQueue.canary } }
  }

  static func refusedPost(_ subject: any ConformanceSubject) throws {
    let bench = try Bench(subject)
    let faults = subject.faultCount
    bench.space.failingMap = 2
    var posted = (0..<pageCount).filter { bench.post($0) }
    try expect(posted == [0] + Array(2..<pageCount), "posted were \(posted)")
    bench.queue.ring()
    for n in 0..<3 {
      let frame = TestFrame.make(to: ReceiveConformance.first, mark: n)
      subject.send(frame)
      let found = try subject.eventually("frame \(n) comes") { () -> [UInt8]? in
        guard let completion = bench.queue.reap() else { return nil }
        let bytes = bench.bytes(posted.removeFirst(), Int(completion.byteCount))
        return TestFrame.isOurs(bytes) || !subject.hasStrangers ? bytes : nil
      }
      try expect(found == frame, "frame \(n) is not in the oldest buffer")
    }
    try expect(bench.isUntouched(1), "a buffer that was refused was written")
    try expect(subject.faultCount == faults, "the IOMMU refused an access")
    try bench.queue.quiesce()
    try expect(bench.pages.count == 0, "\(bench.pages.count) pages are still mapped")
    bench.pages.close()
    try bench.window.close()
  }

  static func failingUnmap(_ subject: any ConformanceSubject) throws {
    let bench = try Bench(subject)
    let faults = subject.faultCount
    for n in 0..<3 { try expect(bench.post(n), "buffer \(n) was refused") }
    bench.queue.ring()
    bench.space.failingUnmap = 1
    subject.send(TestFrame.make(to: ReceiveConformance.first, mark: 1))
    // What is handed out meanwhile would be a breach.
    try subject.eventually("the page cannot be unmapped") {
      try expect(bench.queue.reap() == nil, "a frame was handed out whose page is still mapped")
      return bench.queue.unmapFailure == nil ? nil : ()
    }
    try expect(!bench.post(4), "a buffer was posted after that")
    try bench.queue.quiesce()
    try expect(bench.queue.reap() != nil, "what came cannot be counted")
    try expect(bench.pages.count == 1 && bench.space.unmapFailures.count == 1, "\(bench.pages.count) pages, \(bench.space.unmapFailures.count) failures")
    try expect(subject.faultCount == faults, "the IOMMU refused an access")
    bench.pages.close()
    do throws(IOAddressSpaceError) { try bench.window.close() } catch {
      // The test's bus refused it, and the card's own lets it go.
      guard let place = bench.queue.unmapFailure else { throw ConformanceFailure("no failure") }
      return try subject.space.unmap(place, byteCount: page)
    }
    throw ConformanceFailure("the window was closed as if nothing had been")
  }
}
