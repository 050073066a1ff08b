// The other end of an emulated card's wire: a datagram is a frame, both ways.

import Foundation

/// What changes is changed with the lock held.
final class CardWire: @unchecked Sendable {
  private let descriptor: Int32
  private let folder: String
  /// Signalled at each acknowledgement, and when a flood ends.
  private let lock = NSCondition()
  private var frames: [Data] = []
  /// By the last byte of a front-end's address: how many frames it reports as received.
  private var acknowledged: [UInt8: Int] = [:]
  /// Front-ends that have restarted their ring: what was on the way to them is lost.
  private var restarted: Set<UInt8> = []

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
      if frame.count >= 19, frame[12] == 0x88, frame[13] == 0xb5 {
        acknowledged[frame[11]] = frame[14..<18].reduce(0) { $0 << 8 | Int($1) }
        if frame[18] != 0 { restarted.insert(frame[11]) }
        lock.broadcast()
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

  /// Sends a frame, and waits while the NIC accepts none. False if it accepted none until `deadline`.
  @discardableResult func send(_ frame: Data, before deadline: Deadline = Deadline()) -> Bool {
    while true {
      let count = frame.withUnsafeBytes { bytes in
        Self.with(folder + "/card") { Int32(sendto(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT), $0, $1)) }
      }
      if count >= 0 { return true }
      guard errno == EAGAIN || errno == ENOBUFS, !deadline.isOver else { return false }
      // A datagram socket without a peer always polls as writable: try again soon.
      usleep(1000)
    }
  }

  /// Frames that may be unacknowledged for one front-end.
  ///
  /// The NIC drops a frame for a queue that has no descriptor, and QEMU's counts that in no register. A front-end has 256
  /// buffers. It acknowledges a frame when it has made the buffer available again, and that is not yet when Sluice has posted
  /// it to the NIC: the acknowledgement may leave in the iteration of the worker that published the frame, and the refill
  /// comes with the next. So up to a window of acknowledged buffers may be missing from the NIC's queue when the next window
  /// arrives: two windows must fit into 256, and three do.
  private static let window = 80
  /// A front-end acknowledges every 32nd frame. This many more are certain to be acknowledged, if they arrive.
  private static let probe = 32

  /// Sends all records of a trace, each when the window of its receiver has room for it.
  func send(_ trace: Trace, within seconds: Int = 600) throws {
    lock.withLock { acknowledged = [:] }
    var sent: [UInt8: Int] = [:]
    let deadline = Deadline(seconds: seconds)
    for record in try trace.records() {
      let frame = Data(record.dropFirst(16))
      let address = frame[5]
      let hasRoom = lock.withLock {
        while sent[address, default: 0] - acknowledged[address, default: 0] >= Self.window {
          if !lock.wait(until: deadline.date) { return false }
        }
        return true
      }
      guard hasRoom else {
        throw RigError("within \(seconds) s of \(sent[address, default: 0]) frames for \(address) only \(acknowledged[address, default: 0]) were acknowledged")
      }
      guard send(frame, before: deadline) else { throw RigError("the NIC accepts no frames") }
      sent[address, default: 0] += 1
    }
  }

  private var isFlooding = false

  /// Sends all records of a trace again and again until `endFlood`, as fast as the front-end at its address acknowledges them.
  ///
  /// Frames are lost while the NIC is away or a ring is stopped, and are never acknowledged. Whenever `retry` milliseconds pass
  /// without an acknowledgement, 32 more are sent: enough for one, and so few that a long absence does not lose a lap.
  func flood(_ trace: Trace, retry: Int = 100) throws {
    let frames = try trace.records().map { Data($0.dropFirst(16)) }
    guard let address = frames.first?[5] else { return }
    lock.withLock { isFlooding = true }
    Thread { [weak self] in
      var (sent, seen) = (0, 0)
      while true {
        for frame in frames {
          guard let self, mayFlood(address, &sent, &seen, retry: retry) else { return }
          // One that the NIC does not accept, because it is away, is lost like those before it.
          send(frame, before: Deadline(seconds: 1))
        }
      }
    }.start()
  }

  /// Waits until one more frame may be sent. False if the flood has ended.
  ///
  /// - Parameters:
  ///   - sent: frames, on the scale of acknowledgements.
  ///   - seen: the last acknowledgement.
  private func mayFlood(_ address: UInt8, _ sent: inout Int, _ seen: inout Int, retry: Int) -> Bool {
    lock.withLock {
      while isFlooding {
        let count = acknowledged[address, default: 0]
        // A new front-end counts from 0.
        if count < seen || restarted.remove(address) != nil { sent = count }
        seen = count
        if sent - count < Self.window {
          sent += 1
          return true
        }
        if !lock.wait(until: Date(timeIntervalSinceNow: Double(retry) / 1000)), acknowledged[address, default: 0] == seen {
          sent = seen + Self.window - Self.probe
        }
      }
      return false
    }
  }
  func endFlood() {
    lock.withLock {
      isFlooding = false
      lock.broadcast()
    }
  }
}
