import Glibc
import Linux

/// Standard output and standard error, written at once and to the end.
struct StandardStream {
  let descriptor: CInt
  static let output = StandardStream(descriptor: STDOUT_FILENO)
  static let error = StandardStream(descriptor: STDERR_FILENO)

  var isTerminal: Bool { isatty(descriptor) == 1 }
  /// Characters of a line; nil if it is no terminal.
  var columns: Int? {
    var size = winsize()
    guard unsafe ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
    return Int(size.ws_col)
  }
  /// A terminal that shows colours, whose user has not said NO_COLOR (https://no-color.org).
  var showsColour: Bool {
    isTerminal && (Self.variable("NO_COLOR") ?? "").isEmpty && Self.variable("TERM") != "dumb"
  }

  static func variable(_ name: String) -> String? {
    guard let value = unsafe getenv(name) else { return nil }
    return unsafe String(cString: value)
  }

  /// A reader that has gone away ends the program by SIGPIPE, as it does `cat`; where that is ignored, this throws.
  func write(_ text: String) throws(Failure) {
    let code = put(text)
    if code != 0 {
      throw Failure(status: .output, message: "standard output: \(SystemError.text(code))")
    }
  }

  /// For what may be lost: progress, warnings.
  func note(_ text: String) { _ = put(text) }

  /// Answers errno's value, or 0.
  private func put(_ text: String) -> CInt {
    var text = text
    return text.withUTF8 { bytes in
      var done = 0
      while done < bytes.count {
        let count = unsafe Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
        if count >= 0 {
          done += count
        } else if errno == EAGAIN {
          var waiting = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
          _ = unsafe poll(&waiting, 1, -1)
        } else if errno != EINTR {
          return errno
        }
      }
      return 0
    }
  }
}
