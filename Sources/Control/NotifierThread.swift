internal import Linux
internal import VhostUser

/// A thread that notifies the drivers of one VM whose notifications are dear: who raises an eventfd walks all that wait for it,
/// with interrupts off, and a front-end may let it be waited for 200,000 times (25 ms each). On its worker, other VMs would wait
/// along.
///
/// The worker hands over what is to be raised, and wakes the thread by an eventfd that nobody outside has. The thread rests
/// between two rounds, so that it does not keep a processor from others either; what comes meanwhile for one ring is one
/// notification.
final class NotifierThread: @unchecked Sendable {
  /// Of the time, the notifications of one VM may take one part in so many.
  static let share: UInt64 = 10
  /// The longest rest between two rounds, in nanoseconds.
  static let longestRest: UInt64 = 500_000_000

  private struct Box {
    /// By ring; what waits to be raised.
    var pending: [Int: SharedDescriptor] = [:]
    var isEnding = false
  }
  private let box = Mutex(Box())
  private let wakeUp: EventDescriptor
  private let ending: EventDescriptor
  private let processor: Int?
  private let raised: @Sendable (_ nanoseconds: UInt64) -> Void
  private var thread: ThreadOwner?

  private final class ThreadOwner {
    private var thread: Thread?
    init(_ thread: consuming Thread) { self.thread = consume thread }
    func join() {
      guard let thread = thread.take() else { return }
      thread.join()
    }
  }

  /// Starts the thread.
  ///
  /// - Parameters:
  ///   - processor: where it runs; nil: wherever the process may.
  ///   - raised: called on the thread after each notification, with the time that it took.
  init(vm: Int, processor: Int?, raised: @escaping @Sendable (_ nanoseconds: UInt64) -> Void) throws(SystemError) {
    wakeUp = try EventDescriptor()
    ending = try EventDescriptor()
    (self.processor, self.raised) = (processor, raised)
    thread = ThreadOwner(try Thread(name: "notifier\(vm)") { [self] in run() })
  }

  /// Has a descriptor raised soon. On the worker.
  func post(_ target: SharedDescriptor, ring: Int) {
    box.withLock { $0.pending[ring] = target }
    wakeUp.signal()
  }

  /// Ends the thread; what was not raised is forgotten. Waits for a notification that is under way.
  func stop() {
    box.withLock { $0.isEnding = true }
    ending.signal()
    thread?.join()
    thread = nil
  }

  private func run() {
    // It began where its worker is pinned.
    Thread.unpin()
    if let processor { Thread.pin(to: processor) }
    while true {
      Readiness.wait(for: [wakeUp.descriptor.number, ending.descriptor.number], atMost: nil)
      wakeUp.clear()
      let (pending, isEnding) = box.withLock { box in
        let pending = box.pending
        box.pending = [:]
        return (pending, box.isEnding)
      }
      if isEnding { return }
      var total: UInt64 = 0
      for target in pending.values {
        let start = MonotonicClock.now()
        target.descriptor.raise()
        let time = MonotonicClock.now() - start
        total += time
        raised(time)
      }
      let rest = Self.rest(after: total)
      if rest > 0 { Readiness.wait(for: [ending.descriptor.number], atMost: rest) }
    }
  }

  /// Returns how long to rest after notifications that took so long, in nanoseconds.
  static func rest(after nanoseconds: UInt64) -> UInt64 {
    // Cheap ones are not worth a wait that is longer than a timer's error.
    nanoseconds < 50_000 ? 0 : min(nanoseconds * (share - 1), longestRest)
  }
}

/// How the drivers of one VM are notified: on the worker as long as that is cheap, and by a thread of the VM's own when it is
/// dear.
///
/// The worker's, but for what the notifier's thread counts.
final class Notifications: @unchecked Sendable {
  /// A notification that takes longer is dear, in nanoseconds. An eventfd that a hypervisor waits for takes 1 to 5 µs.
  static let dear: UInt64 = 200_000
  /// So many dear ones of the last 64: one may have been an interrupt, or another process that had the processor.
  static let mostDear = 2
  /// After so many in a row that were not dear, and so long, the worker notifies by itself again. Long, so that who makes them
  /// dear now and then costs the others no more than `mostDear` of them in that time.
  static let cheapRun = 64
  static let cheapTime: UInt64 = 60_000_000_000

  private let vm: Int
  private let processor: Int?
  private let ticksPerNanosecond: Double
  private var judgement = NotificationCost()
  private var thread: NotifierThread?
  /// The thread could not be made: not tried again.
  private var hasFailed = false
  private let isByThread = SharedWord()
  private let cheap = SharedWord()
  private let lastDear = SharedWord()
  private let byThread = SharedWord()

  init(vm: Int, processor: Int?, ticksPerSecond: Double) {
    (self.vm, self.processor, ticksPerNanosecond) = (vm, processor, ticksPerSecond / 1e9)
  }

  /// Whether the VM's notifications have been too dear for its worker.
  var areDear: Bool { isByThread.value != 0 }
  /// Notifications that the thread made.
  var byThreadCount: UInt64 { byThread.value }

  /// Notifies the driver of a ring. Waits for nobody; what the kernel takes for it is charged by who calls.
  func send(_ target: SharedDescriptor?, ring: Int) {
    guard let target else { return }
    if isByThread.value != 0, let thread {
      guard isCheapAgain else { return thread.post(target, ring: ring) }
      isByThread.set(0)
      judgement = NotificationCost()
    }
    let start = TickCounter.now()
    target.descriptor.raise()
    let ticks = TickCounter.now() &- start
    if judgement.isDear(afterTicks: ticks, dear: UInt64(Double(Self.dear) * ticksPerNanosecond)), !hasFailed { handOver() }
  }

  private var isCheapAgain: Bool { cheap.value >= UInt64(Self.cheapRun) && MonotonicClock.now() &- lastDear.value > Self.cheapTime }

  private func handOver() {
    lastDear.set(MonotonicClock.now())
    cheap.set(0)
    if thread == nil {
      let (cheap, lastDear, byThread) = (cheap, lastDear, byThread)
      // Without a thread or a descriptor for one the worker goes on notifying, and charges the VM for it.
      thread = try? NotifierThread(vm: vm, processor: processor) { nanoseconds in
        byThread.set(byThread.value &+ 1)
        if nanoseconds > Self.dear {
          lastDear.set(MonotonicClock.now())
          cheap.set(0)
        } else {
          cheap.set(cheap.value &+ 1)
        }
      }
    }
    // Without a thread the worker goes on by itself: the VM is charged for it.
    hasFailed = thread == nil
    isByThread.set(hasFailed ? 0 : 1)
  }

  /// Ends the thread, if there is one. The worker has ended.
  func stop() {
    thread?.stop()
    thread = nil
  }
}

/// Whether notifications are dear, from what each of the last ones took.
struct NotificationCost {
  /// One bit each notification, the last in the lowest: whether it was dear.
  private var history: UInt64 = 0

  /// Takes one more in.
  mutating func isDear(afterTicks ticks: UInt64, dear: UInt64) -> Bool {
    history = history << 1 | (ticks > dear ? 1 : 0)
    return history.nonzeroBitCount >= Notifications.mostDear
  }
}
