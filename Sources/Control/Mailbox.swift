internal import Linux
internal import Synchronization

/// A way to have something done on a thread that polls: one command at a time, and who gave it waits.
///
/// The thread looks at `isPending` between two rounds of its work, and waits for `wakeUp` when it sleeps.
final class Mailbox: @unchecked Sendable {
  private let command = Mutex<(@Sendable () -> Void)?>(nil)
  private let pending = SharedWord()
  let wakeUp: EventDescriptor
  private let done: EventDescriptor

  init() throws(SystemError) {
    wakeUp = try EventDescriptor()
    done = try EventDescriptor()
  }

  var isPending: Bool { pending.value != 0 }

  /// Has `body` done by the other thread, and returns when it has been. One thread at a time may call.
  func perform<Result>(_ body: @escaping () -> Result) -> Result {
    let call = Call(body)
    command.withLock { $0 = { call.run() } }
    pending.set(1)
    wakeUp.signal()
    while !done.clear() { done.wait(milliseconds: 1000) }
    return call.result!
  }

  /// Does what is asked for, if something is.
  func serve() {
    guard let body = command.withLock({ $0.take() }) else { return }
    pending.set(0)
    wakeUp.clear()
    body()
    done.signal()
  }

  /// What crosses to the other thread and back. Safe, for the two never look at it at the same time.
  private final class Call<Result>: @unchecked Sendable {
    private let body: () -> Result
    var result: Result?
    init(_ body: @escaping () -> Result) { self.body = body }
    func run() { result = body() }
  }
}
