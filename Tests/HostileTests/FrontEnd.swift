import Foundation

/// Requests by their numbers in the specification, vhost-user, "Front-end message types".
enum Ask {
  static let getFeatures: UInt32 = 1, setFeatures: UInt32 = 2, setOwner: UInt32 = 3, resetOwner: UInt32 = 4
  static let setMemTable: UInt32 = 5, setLogBase: UInt32 = 6, setLogFd: UInt32 = 7
  static let setVringNum: UInt32 = 8, setVringAddr: UInt32 = 9, setVringBase: UInt32 = 10, getVringBase: UInt32 = 11
  static let setVringKick: UInt32 = 12, setVringCall: UInt32 = 13, setVringErr: UInt32 = 14
  static let getProtocolFeatures: UInt32 = 15, setProtocolFeatures: UInt32 = 16, getQueueNum: UInt32 = 17
  static let setVringEnable: UInt32 = 18, sendRarp: UInt32 = 19, netSetMtu: UInt32 = 20, setBackendReqFd: UInt32 = 21
  static let getConfig: UInt32 = 24, setConfig: UInt32 = 25, getInflightFd: UInt32 = 31, setInflightFd: UInt32 = 32
  static let resetDevice: UInt32 = 34, getMaxMemSlots: UInt32 = 36, addMemReg: UInt32 = 37, remMemReg: UInt32 = 38
}

/// Header flags. vhost-user, "Header".
enum Flag {
  static let version: UInt32 = 1, reply: UInt32 = 4, needReply: UInt32 = 8
}

/// Bits of VHOST_USER_PROTOCOL_F.
enum ProtocolBit {
  static let mq: UInt64 = 1 << 0, logShmfd: UInt64 = 1 << 1, rarp: UInt64 = 1 << 2, replyAck: UInt64 = 1 << 3
  static let netMtu: UInt64 = 1 << 4, backendReq: UInt64 = 1 << 5, config: UInt64 = 1 << 9
  static let resetDevice: UInt64 = 1 << 13, configureMemSlots: UInt64 = 1 << 15
}

/// Bits of virtio 1.3, 5.1.3 and 6, and the two of vhost-user's own.
enum FeatureBit {
  static let guestChecksum: UInt64 = 1 << 1, mergeable: UInt64 = 1 << 15, logAll: UInt64 = 1 << 26
  static let indirect: UInt64 = 1 << 28, eventIndex: UInt64 = 1 << 29, protocolFeatures: UInt64 = 1 << 30
  static let version1: UInt64 = 1 << 32, packed: UInt64 = 1 << 34, inOrder: UInt64 = 1 << 35
}

/// Numbers in a message are in the machine's order, which is little-endian here.
func littleEndian<each Number: FixedWidthInteger>(_ numbers: repeat each Number) -> [UInt8] {
  var result: [UInt8] = []
  for number in repeat each numbers {
    withUnsafeBytes(of: number.littleEndian) { result += $0 }
  }
  return result
}

func number(_ bytes: some Collection<UInt8>) -> UInt64 {
  bytes.prefix(8).enumerated().reduce(0) { $0 | UInt64($1.element) << UInt64(8 * $1.offset) }
}

struct Broken: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// The other end of a back-end's socket: bytes and descriptors as a test wants them, right or wrong.
final class FrontEnd {
  private(set) var socket: Int32

  init(path: String) throws {
    socket = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { throw Broken("socket: errno \(errno)") }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { room in
      for (n, byte) in path.utf8.enumerated() { room[n] = byte }
    }
    let length = socklen_t(MemoryLayout<sockaddr_un>.size)
    let result = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(socket, $0, length) }
    }
    guard result == 0 else {
      let code = errno
      close()
      throw Broken("connect \(path): errno \(code)")
    }
  }

  deinit { close() }

  func close() {
    if socket >= 0 { Glibc.close(socket) }
    socket = -1
  }

  // MARK: Bytes

  /// Sends bytes, with each list of descriptors as a control message of its own. False: the other end is gone.
  @discardableResult func send(_ bytes: [UInt8], controls: [[Int32]] = [], type: Int32 = 1) -> Bool {
    Self.send(bytes, controls: controls, type: type, on: socket)
  }
  static func send(_ bytes: [UInt8], _ fds: [Int32], on socket: Int32) -> Bool { send(bytes, controls: [fds], type: 1, on: socket) }

  private static func send(_ bytes: [UInt8], controls: [[Int32]], type: Int32, on socket: Int32) -> Bool {
    var control: [UInt8] = []
    for numbers in controls {
      control += littleEndian(UInt64(16 + 4 * numbers.count), Int32(SOL_SOCKET), type)
      for number in numbers { control += littleEndian(number) }
      while control.count % 8 != 0 { control.append(0) }
    }
    var (bytes, sent) = (bytes, 0)
    let count = bytes.count
    bytes.withUnsafeMutableBytes { buffer in
      control.withUnsafeMutableBytes { control in
        var piece = iovec(iov_base: buffer.baseAddress, iov_len: count)
        withUnsafeMutablePointer(to: &piece) { piece in
          var message = msghdr()
          message.msg_iov = piece
          message.msg_iovlen = 1
          if !control.isEmpty {
            message.msg_control = control.baseAddress
            message.msg_controllen = control.count
          }
          sent = sendmsg(socket, &message, Int32(MSG_NOSIGNAL))
        }
      }
    }
    return sent == count
  }

  static func header(_ request: UInt32, _ flags: UInt32, _ size: UInt32) -> [UInt8] { littleEndian(request, flags, size) }

  /// One message, in one piece, as it should be.
  @discardableResult func message(
    _ request: UInt32, _ payload: [UInt8] = [], fds: [Int32] = [], flags: UInt32 = Flag.version
  ) -> Bool {
    send(Self.header(request, flags, UInt32(payload.count)) + payload, controls: fds.isEmpty ? [] : [fds])
  }

  struct Reply: Equatable {
    var request: UInt32
    var flags: UInt32
    var payload: [UInt8]
    var value: UInt64 { number(payload) }
  }
  enum Answer: Equatable {
    case reply(Reply)
    case closed
    case nothing
  }

  /// The next message of the back-end, or that it hung up, or that nothing came.
  func receive(within seconds: Double = 5) -> Answer {
    var header = [UInt8](repeating: 0, count: 12)
    switch fill(&header, seconds) {
    case .none: return .nothing
    case .some(false): return .closed
    case .some(true): break
    }
    var payload = [UInt8](repeating: 0, count: Int(number(header[8..<12])))
    if !payload.isEmpty && fill(&payload, seconds) != true { return .closed }
    return .reply(
      Reply(request: UInt32(number(header[0..<4])), flags: UInt32(number(header[4..<8])), payload: payload))
  }

  /// True: filled; false: closed; nil: not in time.
  private func fill(_ buffer: inout [UInt8], _ seconds: Double) -> Bool? {
    var have = 0
    while have < buffer.count {
      var request = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
      guard poll(&request, 1, Int32(seconds * 1000)) > 0 else { return nil }
      let count = buffer.withUnsafeMutableBytes { recv(socket, $0.baseAddress! + have, $0.count - have, 0) }
      if count <= 0 { return false }
      have += count
    }
    return true
  }

  /// Whether the back-end hangs up, whatever it still says before.
  func isHungUp(within seconds: Double = 5) -> Bool {
    let end = Date(timeIntervalSinceNow: seconds)
    while Date() < end {
      switch receive(within: max(0, end.timeIntervalSinceNow)) {
      case .closed: return true
      case .nothing: return false
      case .reply: continue
      }
    }
    return false
  }

  // MARK: Questions and orders

  /// A message whose answer has a body.
  func ask(_ request: UInt32, _ payload: [UInt8] = [], fds: [Int32] = []) throws -> [UInt8] {
    message(request, payload, fds: fds)
    guard case .reply(let reply) = receive(), reply.request == request, reply.flags == Flag.version | Flag.reply else {
      throw Broken("request \(request) was not answered")
    }
    return reply.payload
  }

  /// A message that is to be acknowledged: 0 is done.
  func order(_ request: UInt32, _ payload: [UInt8] = [], fds: [Int32] = []) throws -> UInt64 {
    message(request, payload, fds: fds, flags: Flag.version | Flag.needReply)
    guard case .reply(let reply) = receive(), reply.request == request, reply.payload.count == 8 else {
      throw Broken("request \(request) was not acknowledged")
    }
    return reply.value
  }

  /// The same, and it must be done.
  func must(_ request: UInt32, _ payload: [UInt8] = [], fds: [Int32] = []) throws {
    let value = try order(request, payload, fds: fds)
    guard value == 0 else { throw Broken("request \(request) was refused with \(value)") }
  }
}
