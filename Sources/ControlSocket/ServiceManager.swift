/// What systemd asks of a service that says of itself when it is ready: sd_notify(3), one datagram a message.
public struct ServiceManager: Sendable {
  /// $NOTIFY_SOCKET: a path, or a name outside the file system that begins with @.
  private let socket: String
  /// How long it may take from one sign of life to the next ($WATCHDOG_USEC); nil: none is asked for.
  public let watchdogMicroseconds: UInt64?

  /// Nil where nobody asks.
  ///
  /// - Parameters:
  ///   - variable: answers an environment variable.
  ///   - pid: our own: $WATCHDOG_PID says whose sign of life is wanted.
  public init?(pid: Int32, variable: (String) -> String?) {
    guard let socket = variable("NOTIFY_SOCKET"), socket.hasPrefix("/") || socket.hasPrefix("@") else { return nil }
    self.socket = socket
    let isOurs = variable("WATCHDOG_PID").map { $0 == String(pid) } ?? true
    watchdogMicroseconds = isOurs ? variable("WATCHDOG_USEC").flatMap { UInt64($0) }.flatMap { $0 > 0 ? $0 : nil } : nil
  }

  public enum Message: Sendable {
    case ready
    /// The configuration is read again; the time is CLOCK_MONOTONIC's, in microseconds.
    case reloading(microseconds: UInt64)
    case stopping
    case alive
    /// One line for `systemctl status`.
    case status(String)

    var text: String {
      switch self {
      case .ready: "READY=1"
      case .reloading(let time): "RELOADING=1\nMONOTONIC_USEC=\(time)"
      case .stopping: "STOPPING=1"
      case .alive: "WATCHDOG=1"
      case .status(let text): "STATUS=" + text.split(separator: "\n").joined(separator: " ")
      }
    }
  }

  /// False if it could not be sent: who manages us will see by that.
  @discardableResult public func send(_ message: Message) -> Bool { UnixSocket.send(message.text, to: socket) == 0 }
}
