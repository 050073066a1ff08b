internal import Glibc
internal import Linux

/// What happened in a deterministic run, a line each. The same seed gives the same bytes.
final class EventLog {
  private let path: String?
  private let descriptor: CInt
  private var buffer: [UInt8] = []
  private var failure: CInt = 0

  var isOn: Bool { path != nil }

  init(_ path: String?) throws(ReplayError) {
    self.path = path
    guard let path else {
      descriptor = -1
      return
    }
    descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw .machine("--event-log \(path): \(SystemError.text(errno))") }
    buffer.reserveCapacity(1 << 17)
  }
  deinit { if descriptor >= 0 { Glibc.close(descriptor) } }

  /// - Parameter line: without its end; made only if there is a log.
  func note(_ line: @autoclosure () -> String) {
    guard isOn else { return }
    buffer.append(contentsOf: line().utf8)
    buffer.append(10)
    if buffer.count > 1 << 16 { flush() }
  }

  private func flush() {
    var done = 0
    unsafe buffer.withUnsafeBytes { bytes in
      while done < bytes.count, failure == 0 {
        let count = unsafe write(descriptor, bytes.baseAddress! + done, bytes.count - done)
        if count < 0 { failure = errno } else { done += count }
      }
    }
    buffer.removeAll(keepingCapacity: true)
  }

  func close() throws(ReplayError) {
    guard let path else { return }
    flush()
    guard failure == 0 else { throw .machine("--event-log \(path): \(SystemError.text(failure))") }
  }
}
