import Linux

/// Writes lines on a thread of its own: whoever logs never waits for who reads the log. Where that one is too slow,
/// lines are dropped and their number is said.
final class LogWriter: Sendable {
  /// Lines that may wait.
  static let capacity = 1024

  private struct Queue {
    var lines: [String] = []
    var lost: UInt64 = 0
    var isWriting = false
    var isClosed = false
  }
  private let queue = Mutex(Queue())
  private let news: EventDescriptor
  private let stream: StandardStream

  /// - Parameter lost: the line that says how many were dropped.
  init(to stream: StandardStream, lost: @escaping @Sendable (UInt64) -> String) throws(Failure) {
    self.stream = stream
    do { news = try EventDescriptor() } catch { throw Failure(status: .machine, message: "the log: \(error)") }
    do {
      _ = try Thread(name: "log") { [self] in
        while write(lost) { news.wait(milliseconds: 60_000) }
      }
    } catch { throw Failure(status: .machine, message: "the thread for the log: \(error)") }
  }

  func enqueue(_ line: String) {
    queue.withLock { queue in
      if queue.lines.count < Self.capacity { queue.lines.append(line) } else { queue.lost += 1 }
    }
    news.signal()
  }

  /// Writes what there is; false when nothing will come any more.
  private func write(_ lost: (UInt64) -> String) -> Bool {
    news.clear()
    while true {
      let (text, isClosed) = queue.withLock { queue in
        var text = queue.lines.joined()
        if queue.lost > 0 { text += lost(queue.lost) }
        queue.lines.removeAll(keepingCapacity: true)
        queue.lost = 0
        queue.isWriting = !text.isEmpty
        return (text, queue.isClosed)
      }
      if text.isEmpty { return !isClosed }
      stream.note(text)
    }
  }

  /// Waits until all is written, but not for ever: a reader that has stopped reading must not keep us from ending.
  func close(seconds: Double = 1) {
    queue.withLock { $0.isClosed = true }
    news.signal()
    let end = MonotonicClock.now() + UInt64(seconds * 1e9)
    while MonotonicClock.now() < end, queue.withLock({ !$0.lines.isEmpty || $0.isWriting || $0.lost > 0 }) {
      MonotonicClock.sleep(nanoseconds: 1_000_000)
    }
  }
}
