public import GuestMemory
internal import Linux
public import Virtio

/// A virtual machine's network driver and its memory, in this process: what a front-end and a guest would be.
///
/// It is written from the specification and behaves as Linux's driver does; it shares no code with the device's side,
/// so that each can show the other's mistakes. All it receives is checked.
///
/// One thread starts it and steps it; `counters` may be read by any thread. A class, because that thread and
/// the one that watches share it.
///
///     let guest = try SimulatedGuest(configuration)
///     let features = try guest.negotiate(offered: device)
///     let memory = try guest.makeBackEndMap()      // with guest.layout(queue:) all that a device needs
///     guest.start()
///     while running {
///       if guest.step(queue: 0) == 0, guest.prepareToSleep(queue: 0) { wait() }
///       if guest.needsKick(queue: 0) { kick() }
///     }
@safe public final class SimulatedGuest: @unchecked Sendable {
  public let configuration: Configuration
  /// What device and driver agreed on; empty before `negotiate`.
  public private(set) var features: Features = []
  private let plan: GuestLayout
  private let memory: GuestMemoryFiles
  private let page: CounterPage
  private let log: ViolationLog
  /// `queueCount` of them, there once the guest has started.
  private let queues: UnsafeMutablePointer<GuestReceiveQueue>
  private var hasStarted = false
  private var unusedRanges: [Range<UInt64>] = []

  /// Makes its memory. Nothing is posted yet.
  public init(_ configuration: Configuration) throws(GuestError) {
    self.configuration = configuration
    plan = try GuestLayout(configuration)
    do {
      memory = try GuestMemoryFiles(
        name: configuration.name, plan, pages: configuration.placement.pages, node: configuration.placement.node)
    } catch { throw .memory(error) }
    page = CounterPage(queueCount: configuration.queueCount)
    log = ViolationLog(queueCount: configuration.queueCount)
    unsafe queues = .allocate(capacity: configuration.queueCount)
    if configuration.checksUnusedMemory {
      unusedRanges = plan.unusedRanges()
      for range in unusedRanges { memory.fillWithNoise(range, seed: configuration.seed) }
    }
  }

  deinit {
    if hasStarted { unsafe queues.deinitialize(count: configuration.queueCount) }
    unsafe queues.deallocate()
    page.deallocate()
  }

  // MARK: What a device needs

  /// Takes of the features offered what it wants and knows. Returns what it took. virtio 1.3, 2.2.1.
  @discardableResult public func negotiate(offered: Features) throws(GuestError) -> Features {
    precondition(!hasStarted, "features are agreed on before a guest starts")
    let accepted = offered.intersection(configuration.features).intersection(Self.understoodFeatures)
    guard accepted.contains(.version1) else { throw .noVersion1 }
    features = accepted
    return accepted
  }

  /// Where a queue's ring lies.
  public func layout(queue: Int) -> SplitRingLayout { plan.rings[queue] }

  /// The guest's memory, mapped once more: what a back-end has after a front-end handed it the descriptors.
  public func makeBackEndMap() throws(MemoryError) -> MemoryMap { try memory.mapAgain() }

  // MARK: The driver

  /// Makes every buffer available that the rings have room for.
  ///
  /// - Parameter sink: is given every frame.
  public func start(sink: (any FrameSink)? = nil) {
    precondition(features.contains(.version1), "a guest starts after features are agreed on")
    precondition(!hasStarted, "a guest starts once")
    for number in 0..<configuration.queueCount {
      unsafe (queues + number).initialize(
        to: GuestReceiveQueue(
          number: number, configuration, plan, in: memory, features: features, log: log, page: page, sink: sink))
    }
    hasStarted = true
  }

  /// One poll of a queue: takes used buffers, up to 64 frames, and posts others. Returns the frames taken, those with
  /// them that could not be delivered. While it returns more than zero the driver wants no notification.
  public func step(queue: Int) -> Int {
    check(queue)
    return unsafe queues[queue].step()
  }

  /// Ends a stall, so that what was delivered meanwhile can be looked at. To be called where `step` is.
  public func resume(queue: Int) {
    check(queue)
    unsafe queues[queue].resume()
  }

  /// Whether the device wants a kick for the buffers posted since this was last asked.
  public func needsKick(queue: Int) -> Bool {
    check(queue)
    return unsafe queues[queue].needsKick()
  }

  /// Asks the device for a notification. False if there are used buffers already: step again instead of sleeping.
  public func prepareToSleep(queue: Int) -> Bool {
    check(queue)
    return unsafe queues[queue].prepareToSleep()
  }

  // MARK: What it found

  /// One queue's counters. May be called on any thread.
  public func counters(queue: Int) -> Counters { page.load(queue: queue) }

  /// All queues' counters. May be called on any thread.
  public func counters() -> Counters {
    (0..<configuration.queueCount).reduce(Counters()) { $0 + page.load(queue: $1) }
  }

  /// What the device did wrong. To be called on the guest's thread, or when that has ended.
  public var violations: ViolationReport { log.report }

  /// The digest over a queue's frames, each with its length; nil if the guest does not hash.
  /// To be called on the guest's thread, or when that has ended.
  public func digest(queue: Int) -> SHA256Digest? {
    check(queue)
    return unsafe queues[queue].digest
  }

  /// Looks whether memory that is neither a buffer nor a ring, and what the driver wrote into its rings, is as it was;
  /// what is not becomes a violation. Memory is looked at only if the configuration asks for it.
  /// To be called on the guest's thread, or when that has ended.
  @discardableResult public func verifyUntouched() -> Bool {
    check(0)
    var isSound = true
    for range in unusedRanges {
      guard let address = memory.firstChange(in: range, seed: configuration.seed) else { continue }
      isSound = false
      unsafe queues[0].record(.foreignWrite, "at \(address)")
      unsafe queues[0].publishCounters()
    }
    for number in 0..<configuration.queueCount where unsafe !queues[number].verifyRing() { isSound = false }
    return isSound
  }

  private func check(_ queue: Int) {
    precondition(hasStarted && queue >= 0 && queue < configuration.queueCount, "no such queue, or not started")
  }
}
