internal import Linux

/// The control thread's loop: descriptors that may be read or written, moments that come due, and work that other
/// threads have given it.
///
/// It blocks in `poller.wait`, and its work only with a limit: for a worker (`WorkerThread.commandLimit` for each message of
/// a front-end) and for registers of the NIC. A service manager's watchdog is answered between two pieces of work.
///
/// `post` may be called from any thread; everything else belongs to the loop's own.
final class ControlLoop: @unchecked Sendable {
  private struct Inbox {
    var work: [@Sendable () -> Void] = []
    var isClosed = false
  }
  private let inbox = Mutex(Inbox())
  private let wakeUp: EventDescriptor
  private let poller: Poller

  private var handlers: [UInt64: (Poller.Ready) -> Void] = [:]
  private var nextToken: UInt64 = 1
  private var timers: [(due: UInt64, token: UInt64, body: () -> Void)] = []
  private var isEnding = false

  init() throws(SystemError) {
    poller = try Poller()
    wakeUp = try EventDescriptor()
    try poller.add(wakeUp.descriptor.number, for: .read, token: 0)
  }

  // MARK: Any thread

  /// Has work done by the loop, soon. False: the loop has ended, and will not do it.
  @discardableResult func post(_ work: @escaping @Sendable () -> Void) -> Bool {
    let isOpen = inbox.withLock { inbox in
      if !inbox.isClosed { inbox.work.append(work) }
      return !inbox.isClosed
    }
    if isOpen { wakeUp.signal() }
    return isOpen
  }

  // MARK: The loop's own

  /// Watches a descriptor, which must stay open until `unwatch`. Answers the name to do that by.
  func watch(_ descriptor: CInt, _ handler: @escaping (Poller.Ready) -> Void) throws(SystemError) -> UInt64 {
    let token = nextToken
    nextToken += 1
    try poller.add(descriptor, for: .read, token: token)
    handlers[token] = handler
    return token
  }
  /// Whether the descriptor is watched for being writable, and for nothing else.
  func setWriting(_ isWriting: Bool, _ descriptor: CInt, token: UInt64) {
    try? poller.modify(descriptor, for: isWriting ? .write : .read, token: token)
  }
  func unwatch(_ descriptor: CInt, token: UInt64) {
    handlers[token] = nil
    try? poller.remove(descriptor)
  }

  /// Has `body` done once, after so long. Answers the name to forget it by.
  @discardableResult func after(milliseconds: UInt64, _ body: @escaping () -> Void) -> UInt64 {
    let token = nextToken
    nextToken += 1
    timers.append((MonotonicClock.now() + milliseconds * 1_000_000, token, body))
    return token
  }
  func forget(_ token: UInt64) { timers.removeAll { $0.token == token } }

  func end() { isEnding = true }

  func run() {
    while !isEnding {
      let now = MonotonicClock.now()
      let next = timers.map(\.due).min()
      let wait = next.map { $0 <= now ? 0 : Int(($0 - now) / 1_000_000) + 1 }
      for event in (try? poller.wait(milliseconds: wait)) ?? [] {
        if event.token == 0 { wakeUp.clear() } else { handlers[event.token]?(event) }
      }
      let due = timers.filter { $0.due <= MonotonicClock.now() }
      timers.removeAll { timer in due.contains { $0.token == timer.token } }
      for timer in due.sorted(by: { ($0.due, $0.token) < ($1.due, $1.token) }) { timer.body() }
      work()
    }
    inbox.withLock { $0.isClosed = true }
    work()
  }

  private func work() {
    let work = inbox.withLock { inbox in
      let work = inbox.work
      inbox.work = []
      return work
    }
    for body in work { body() }
  }
}
