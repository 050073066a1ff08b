internal import Linux

/// Commands for a thread that polls, executed in order between two iterations of its loop.
///
/// The sender is the control thread. It may wait for a command with a deadline; a command that is not finished by then
/// stays queued, executes later, in order, and keeps its objects alive. The queue is bounded.
///
/// The thread checks `isPending` between two iterations, and blocks on `wakeUp` when it sleeps.
final class Mailbox: @unchecked Sendable {
  /// Commands that may be queued, and how many of these places only `sendLast` takes.
  ///
  /// A VM whose command is not executed in time sends one more, which detaches its lanes, and no further one. So there
  /// are at most two for each VM, and a few of the service's.
  static let capacity = 512, reserved = 128

  private let commands = Mutex<[Command]>([])
  private let pending = SharedWord()
  let wakeUp: EventDescriptor
  private let done: EventDescriptor
  /// Commands that the sender no longer waits for. The sender's.
  private var overdue: [Receipt] = []

  init() throws(SystemError) {
    wakeUp = try EventDescriptor()
    done = try EventDescriptor()
  }

  /// Whether a command is queued.
  var isPending: Bool { pending.value != 0 }

  // MARK: The sender's side

  /// Queues a command that finishes when `body` returns.
  ///
  /// - Returns: nil if the queue is full.
  func send(_ body: @escaping () -> Void) -> Receipt? {
    enqueue(limit: Self.capacity - Self.reserved) { receipt in
      body()
      receipt.finish()
    }
  }

  /// Queues a command whose `body` gives the receipt to who finishes it.
  ///
  /// - Parameter isLast: it may take a reserved place.
  /// - Returns: nil if the queue is full.
  func send(isLast: Bool = false, finishing body: @escaping (Receipt) -> Void) -> Receipt? {
    enqueue(limit: isLast ? Self.capacity : Self.capacity - Self.reserved, body)
  }

  private func enqueue(limit: Int, _ body: @escaping (Receipt) -> Void) -> Receipt? {
    let receipt = Receipt { [self] in done.signal() }
    let command = Command(receipt, body)
    let isQueued = commands.withLock { commands in
      guard commands.count < limit else { return false }
      commands.append(command)
      return true
    }
    guard isQueued else { return nil }
    pending.set(1)
    wakeUp.signal()
    return receipt
  }

  /// Blocks until a command is finished, or until `deadline`.
  ///
  /// - Parameter deadline: of the monotonic clock, in nanoseconds.
  /// - Returns: true if it is finished.
  func wait(for receipt: Receipt, until deadline: UInt64) -> Bool {
    while !receipt.isFinished {
      let now = MonotonicClock.now()
      guard now < deadline else {
        overdue.append(receipt)
        return false
      }
      done.wait(milliseconds: Int(clamping: (deadline - now) / 1_000_000) + 1)
      done.clear()
    }
    return true
  }

  /// Has `body` executed, and waits for its result until `deadline`.
  ///
  /// - Returns: nil if it was not executed by then. It is later, unless the queue is full.
  func perform<Result>(until deadline: UInt64, _ body: @escaping () -> Result) -> Result? {
    let call = Call(body)
    guard let receipt = send({ call.run() }), wait(for: receipt, until: deadline) else { return nil }
    return call.result
  }

  /// Whether the sender gave up waiting for a command that is not finished yet.
  var isOverdue: Bool {
    overdue.removeAll(where: \.isFinished)
    return !overdue.isEmpty
  }

  // MARK: The other thread's side

  /// Executes what is queued.
  func serve() {
    pending.set(0)
    wakeUp.clear()
    let waiting = commands.withLock { commands in
      let waiting = commands
      commands = []
      return waiting
    }
    for command in waiting { command.body(command.receipt) }
  }

  /// Safe: the two threads never use it at the same time.
  private final class Command: @unchecked Sendable {
    let receipt: Receipt
    let body: (Receipt) -> Void
    init(_ receipt: Receipt, _ body: @escaping (Receipt) -> Void) { (self.receipt, self.body) = (receipt, body) }
  }
  private final class Call<Result>: @unchecked Sendable {
    private let body: () -> Result
    private(set) var result: Result?
    init(_ body: @escaping () -> Result) { self.body = body }
    func run() { result = body() }
  }
}

/// Whether a command is finished. The thread that executes commands finishes it; the sender waits for it, or has
/// something done then.
final class Receipt: @unchecked Sendable {
  private struct State {
    var isFinished = false
    var late: (@Sendable () -> Void)?
  }
  private let state = Mutex(State())
  private let onFinish: () -> Void

  /// - Parameter onFinish: wakes the sender.
  init(_ onFinish: @escaping () -> Void) { self.onFinish = onFinish }

  var isFinished: Bool { state.withLock(\.isFinished) }

  /// Ends the wait for it: everything that the calling thread has written is visible to the sender then.
  func finish() {
    let late = state.withLock { state in
      state.isFinished = true
      return state.late.take()
    }
    onFinish()
    late?()
  }

  /// Has `body` called once it is finished: at once, or by the thread that finishes it.
  func whenFinished(_ body: @escaping @Sendable () -> Void) {
    let isFinished = state.withLock { state in
      if !state.isFinished { state.late = body }
      return state.isFinished
    }
    if isFinished { body() }
  }
}
