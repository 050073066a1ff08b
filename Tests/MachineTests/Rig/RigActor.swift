// Where the tests with machines run.

import Foundation

/// One test at a time, on a thread of its own: they wait for guests, and a wait must hold up neither the other suites of
/// the run nor a second machine's share of the processor. The thread never ends, so what it starts may be bound to it.
@globalActor actor RigActor {
  static let shared = RigActor()
  static let threadName = "rig"
  private static let thread = RigThread()
  nonisolated var unownedExecutor: UnownedSerialExecutor { Self.thread.asUnownedSerialExecutor() }
}

private final class RigThread: SerialExecutor, @unchecked Sendable {
  private let condition = NSCondition()
  private var jobs: [UnownedJob] = []

  init() {
    let thread = Thread { [unowned self] in
      while true { next().runSynchronously(on: asUnownedSerialExecutor()) }
    }
    thread.name = RigActor.threadName
    thread.start()
  }

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    condition.withLock {
      jobs.append(job)
      condition.signal()
    }
  }

  private func next() -> UnownedJob {
    condition.withLock {
      while jobs.isEmpty { condition.wait() }
      return jobs.removeFirst()
    }
  }
}
