// The other end of an emulated card's wire: a datagram is a frame, both ways.

import Foundation

/// What changes is changed with the lock held.
final class CardWire: @unchecked Sendable {
  private let descriptor: Int32
  private let folder: String
  private let lock = NSLock()
  private var frames: [Data] = []
  /// By the last byte of a sender's address: how many frames it says have come.
  private var acknowledged: [UInt8: Int] = [:]

  init(folder: String) throws {
    self.folder = folder
    descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    let isBound = Self.with(folder + "/host") { bind(descriptor, $0, $1) } == 0
    guard descriptor >= 0, isBound else { throw RigError("the card's wire: \(String(cString: strerror(errno)))") }
    var room: Int32 = 8 << 20
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &room, socklen_t(MemoryLayout.size(ofValue: room)))
    Thread { [weak self, descriptor] in
      var bytes = [UInt8](repeating: 0, count: 65536)
      while true {
        let count = recv(descriptor, &bytes, bytes.count, 0)
        guard count > 0 else { return }
        self?.take(Data(bytes[..<count]))
      }
    }.start()
  }

  deinit {
    shutdown(descriptor, Int32(SHUT_RDWR))
    close(descriptor)
  }

  var netdev: String {
    "dgram,id=wire,local.type=unix,local.path=\(folder)/card,remote.type=unix,remote.path=\(folder)/host"
  }

  private static func with(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
  }

  private func take(_ frame: Data) {
    lock.withLock {
      if frame.count >= 18, frame[12] == 0x88, frame[13] == 0xb5 {
        acknowledged[frame[11]] = frame[14..<18].reduce(0) { $0 << 8 | Int($1) }
      } else {
        frames.append(frame)
      }
    }
  }

  /// What the card has sent since the last call, without acknowledgements.
  func sent() -> [Data] {
    lock.withLock {
      defer { frames = [] }
      return frames
    }
  }

  /// Sends a frame; waits while the card takes none. False: it took none for so long.
  @discardableResult func send(_ frame: Data, patience milliseconds: Int32 = 30_000) -> Bool {
    while true {
      let count = frame.withUnsafeBytes { bytes in
        Self.with(folder + "/card") { Int32(sendto(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT), $0, $1)) }
      }
      if count >= 0 { return true }
      guard errno == EAGAIN || errno == ENOBUFS else { return false }
      var writable = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
      // A datagram socket that is not connected is always writable: the other's queue is asked again soon.
      _ = poll(&writable, 0, 1)
      if milliseconds <= 0 { return false }
      return send(frame, patience: milliseconds - 1)
    }
  }

  private var isFlooding = false

  /// Sends all records of a trace, again and again and as fast as the card takes them, until `endFlood`.
  ///
  /// - Parameter pause: after each, in microseconds.
  func flood(_ trace: Trace, pause: UInt32 = 0) throws {
    let frames = try trace.records().map { Data($0.dropFirst(16)) }
    lock.withLock { isFlooding = true }
    Thread { [weak self] in
      while true {
        for frame in frames {
          guard let self, lock.withLock({ self.isFlooding }) else { return }
          send(frame, patience: 100)
          if pause > 0 { usleep(pause) }
        }
      }
    }.start()
  }
  func endFlood() { lock.withLock { isFlooding = false } }

  /// Frames that may be on their way to one address: fewer than a front-end posts buffers for.
  private static let window = 160

  /// Sends all records of a trace, none of them before there is room for it: as receivers acknowledge.
  func send(_ trace: Trace) throws {
    lock.withLock { acknowledged = [:] }
    var sent: [UInt8: Int] = [:]
    for record in try trace.records() {
      let frame = Data(record.dropFirst(16))
      let address = frame[5]
      try eventually("frames for \(address) are acknowledged", within: 30) {
        lock.withLock { sent[address, default: 0] - acknowledged[address, default: 0] < Self.window }
      }
      guard send(frame) else { throw RigError("the card takes no frames") }
      sent[address, default: 0] += 1
    }
  }
}
