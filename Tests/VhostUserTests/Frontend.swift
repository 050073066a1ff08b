import Glibc
import GuestMemory
import Linux
import Support
import Testing
import VhostUser
import Virtio

/// Bytes of a message, put together from the specification and not by the code under test. x86-64 and arm64: little-endian.
struct Bytes {
  var all: [UInt8] = []
  func u32(_ value: UInt32) -> Bytes { with((0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }) }
  func u64(_ value: UInt64) -> Bytes { with((0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }) }
  func with(_ bytes: [UInt8]) -> Bytes { Bytes(all: all + bytes) }
}
func u64(_ value: UInt64) -> [UInt8] { Bytes().u64(value).all }
func state(_ index: UInt32, _ number: UInt32) -> [UInt8] { Bytes().u32(index).u32(number).all }
func number(_ bytes: [UInt8]?) -> UInt64? {
  guard let bytes, bytes.count == 8 else { return nil }
  return bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
}

/// Request numbers, as the specification lists them.
enum ID {
  static let getFeatures: UInt32 = 1, setFeatures: UInt32 = 2, setOwner: UInt32 = 3, resetOwner: UInt32 = 4
  static let setMemTable: UInt32 = 5, setLogBase: UInt32 = 6, setLogFd: UInt32 = 7
  static let setNum: UInt32 = 8, setAddr: UInt32 = 9, setBase: UInt32 = 10, getBase: UInt32 = 11
  static let setKick: UInt32 = 12, setCall: UInt32 = 13, setErr: UInt32 = 14
  static let getProtocol: UInt32 = 15, setProtocol: UInt32 = 16, getQueueNum: UInt32 = 17, enable: UInt32 = 18
  static let sendRarp: UInt32 = 19, setMTU: UInt32 = 20, setRequests: UInt32 = 21
  static let getConfig: UInt32 = 24, setConfig: UInt32 = 25, getInflight: UInt32 = 31, setInflight: UInt32 = 32
  static let resetDevice: UInt32 = 34
  static let getSlots: UInt32 = 36, addRegion: UInt32 = 37, removeRegion: UInt32 = 38
}

/// An inflight description: two words of 64 bits, two of 16.
struct InflightPlace {
  var size: UInt64 = 0
  var offset: UInt64 = 0
  var rings: UInt32 = 4
  var entries: UInt32 = 256
  /// Of 20 bytes, as the specification has it; C's padding makes it 24.
  var bytes: [UInt8] { Bytes().u64(size).u64(offset).u32(rings | entries << 16).all }
  var padded: [UInt8] { bytes + [0, 0, 0, 0] }
}

struct Region {
  var guest: UInt64
  var size: UInt64
  var user: UInt64
  var offset: UInt64 = 0
  var bytes: [UInt8] { Bytes().u64(guest).u64(size).u64(user).u64(offset).all }
  var single: [UInt8] { u64(0) + bytes }
  static func table(_ regions: [Region]) -> [UInt8] {
    Bytes().u32(UInt32(regions.count)).u32(0).with(regions.flatMap(\.bytes)).all
  }
}

/// Bits that the tests offer.
let offered: Features = [
  .mergeableBuffers, .mtu, .multiqueue, .indirectDescriptors, .eventIndex, .version1, .inOrder, .ringPacked,
]
let protocolBit: UInt64 = 1 << 30
let logBit: UInt64 = 1 << 26
let packedBit: UInt64 = 1 << 34
let version1Bit: UInt64 = 1 << 32
/// MQ LOG_SHMFD RARP REPLY_ACK NET_MTU BACKEND_REQ CONFIG INFLIGHT_SHMFD RESET_DEVICE CONFIGURE_MEM_SLOTS
let allProtocolBits: UInt64 = 0xB23F

/// A front-end over a socket pair, and the back-end that it talks to, in one thread: what is sent is handled before
/// the next line.
final class Frontend {
  let device: RecordingDevice
  let backend: Backend
  let socket: CInt
  var now: UInt64 = 1_000_000_000
  private let log: Log
  final class Log { var events: [Event] = [] }
  var events: [Event] { log.events }

  /// What measures how long messages take: nothing takes any time, so that no test depends on the machine's.
  final class Stopwatch { var now: UInt64 = 0 }

  init(
    _ offer: Offer? = nil, limits: Limits = Limits(), device: RecordingDevice = RecordingDevice(), stopwatch: Stopwatch = Stopwatch()
  ) throws {
    self.device = device
    let log = Log()
    self.log = log
    backend = Backend(offer ?? Offer(features: offered, queuePairs: 2), limits: limits, device: device, clock: { stopwatch.now }, workClock: { stopwatch.now }) {
      log.events.append($0)
    }
    socket = try Self.connect(backend, now)
  }

  /// Another connection of the same back-end.
  init(again other: Frontend) throws {
    device = other.device
    backend = other.backend
    log = other.log
    now = other.now
    socket = try Self.connect(backend, now)
  }

  private static func connect(_ backend: Backend, _ now: UInt64) throws -> CInt {
    var ends: [CInt] = [-1, -1]
    try check(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0, &ends) == 0, "socketpair")
    backend.connect(try UnixStream(adopting: OwnedDescriptor(adopting: ends[1])), now: now)
    return ends[0]
  }

  private var isOpen = true
  func close() {
    if isOpen { _ = Glibc.close(socket) }
    isOpen = false
  }
  deinit {
    backend.disconnect()
    close()
    settle()
  }

  var isConnected: Bool { backend.isConnected }

  // MARK: Sending

  /// Flags: 1 is the version; 9 asks for an answer.
  static func message(_ id: UInt32, flags: UInt32 = 1, size: UInt32? = nil, _ payload: [UInt8] = []) -> [UInt8] {
    Bytes().u32(id).u32(flags).u32(size ?? UInt32(payload.count)).all + payload
  }

  /// Sends and lets the back-end act.
  func send(_ id: UInt32, _ payload: [UInt8] = [], _ descriptors: [CInt] = [], flags: UInt32 = 1) {
    raw(Self.message(id, flags: flags, payload), descriptors)
    turn()
  }

  func turn() {
    backend.readable(now: now)
    settle()
  }

  func disconnect() {
    backend.disconnect()
    settle()
  }
  @discardableResult func expire(now: UInt64) -> Bool {
    defer { settle() }
    return backend.expire(now: now)
  }

  /// Until every descriptor that was let go is closed, which is another thread's.
  func settle() {
    let end = MonotonicClock.now() + 10_000_000_000
    while backend.reaper.waitingCount > 0, MonotonicClock.now() < end { sched_yield() }
  }

  /// Bytes with descriptors, in one part of control data.
  func raw(_ bytes: [UInt8], _ descriptors: [CInt] = []) {
    let data = descriptors.withUnsafeBytes { Array($0) }
    raw(bytes, control: descriptors.isEmpty ? [] : Self.control(SCM_RIGHTS_VALUE, data))
  }

  /// A part of control data, laid out by hand: length, level, type, data, padding. cmsg(3)
  static func control(_ type: CInt, _ data: [UInt8]) -> [UInt8] {
    let part = Bytes().u64(UInt64(16 + data.count)).u32(UInt32(SOL_SOCKET)).u32(UInt32(type)).all + data
    return part + [UInt8](repeating: 0, count: (8 - part.count % 8) % 8)
  }

  func raw(_ bytes: [UInt8], control: [UInt8]) {
    var (bytes, control) = (bytes, control)
    let count = bytes.count
    let length = control.count
    let sent = bytes.withUnsafeMutableBytes { bytes in
      control.withUnsafeMutableBytes { control in
        var piece = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
        return withUnsafeMutablePointer(to: &piece) { piece in
          var header = msghdr()
          header.msg_iov = piece
          header.msg_iovlen = 1
          header.msg_control = length == 0 ? nil : control.baseAddress
          header.msg_controllen = length
          return sendmsg(socket, &header, CInt(MSG_NOSIGNAL))
        }
      }
    }
    if sent != count { lastSendError = errno }
  }
  var lastSendError: CInt = 0

  // MARK: Receiving

  struct Reply: Equatable {
    var id: UInt32
    var flags: UInt32
    var payload: [UInt8]
  }

  /// The next reply, if one is there.
  func receive() -> Reply? {
    guard let head = read(12), head.count == 12 else { return nil }
    func word(_ n: Int) -> UInt32 { head[4 * n..<4 * n + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) } }
    let size = Int(word(2))
    return Reply(id: word(0), flags: word(1), payload: size == 0 ? [] : read(size) ?? [])
  }

  func read(_ count: Int) -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: count)
    let got = recv(socket, &bytes, count, CInt(MSG_DONTWAIT))
    return got > 0 ? Array(bytes.prefix(got)) : nil
  }

  /// Sends, and gives the only answer's payload; nil if there is none, or more than one.
  func ask(_ id: UInt32, _ payload: [UInt8] = [], _ descriptors: [CInt] = [], flags: UInt32 = 1) -> [UInt8]? {
    send(id, payload, descriptors, flags: flags)
    guard let reply = receive(), reply.id == id, reply.flags == 5, receive() == nil else { return nil }
    return reply.payload
  }

  /// Sends, asking for an answer: 0 if it was done.
  func acknowledged(_ id: UInt32, _ payload: [UInt8] = [], _ descriptors: [CInt] = []) -> UInt64? {
    number(ask(id, payload, descriptors, flags: 9))
  }

  // MARK: What was told

  var refusals: [MessageError] { events.compactMap { if case .refused(let error) = $0 { error } else { nil } } }
  var ringRefusals: [RingProblem] { events.compactMap { if case .ringRefused(_, let problem) = $0 { problem } else { nil } } }
  var disconnection: DisconnectReason? {
    events.lazy.compactMap { if case .disconnected(let reason) = $0 { reason } else { nil } }.last
  }
}

let SCM_RIGHTS_VALUE: CInt = 1
let SCM_CREDENTIALS_VALUE: CInt = 2
