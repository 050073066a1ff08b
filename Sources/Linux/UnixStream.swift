internal import CLinux
internal import Glibc

/// A connected Unix stream socket that passes descriptors along with bytes, and never blocks. unix(7), cmsg(3).
public struct UnixStream: ~Copyable, Sendable {
  public private(set) var descriptor: OwnedDescriptor

  /// Descriptors that the kernel passes with one message, at most. unix(7), SCM_MAX_FD.
  public static let mostDescriptors = Int(SL_MOST_DESCRIPTORS)

  /// Takes over a connected socket.
  public init(adopting descriptor: consuming OwnedDescriptor) throws(SystemError) {
    guard sl_set_nonblocking(descriptor.number) == 0 else { throw SystemError(.fcntl) }
    self.descriptor = descriptor
  }
  init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }
  /// Takes over a socket that another process has too, whose flags stay as that has them: no call here waits.
  public init(shared descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }

  /// Has the socket, and all descriptors that come through it, closed by a VM's reaper. Closing it closes what waits in
  /// it, too.
  public mutating func entrust(to reaper: Reaper) { descriptor.entrust(to: reaper) }

  /// Lets the other end see the end now, however long it takes to close this one.
  public borrowing func shutDown() { sl_shut_down(descriptor.number) }

  /// True if bytes wait in it or the other end is closed. Asks without reading.
  public var hasInputOrEnd: Bool { borrowing get { sl_has_input_or_end(descriptor.number) != 0 } }

  /// Connects to a socket that somebody listens on. Does not wait: a listener whose backlog is full is EAGAIN.
  public init(connectingTo path: String) throws(SystemError) {
    let number = sl_unix_socket()
    guard number >= 0 else { throw SystemError(.socket) }
    let descriptor = OwnedDescriptor(adopting: number)
    guard unsafe sl_unix_connect(number, path) == 0 else { throw SystemError(.connect) }
    self.descriptor = descriptor
  }

  /// What a receive found.
  public enum Reception: ~Copyable {
    /// At least one byte. Descriptors came with the first of them, if any came.
    case bytes([UInt8], ReceivedDescriptors)
    /// Nothing is there now.
    case nothing
    /// The other end is closed, and everything that it sent was received.
    case end
    /// Something else than descriptors came along, or not all of them arrived. Everything that came is closed.
    case foreignControlData
  }

  /// Receives at most `limit` bytes, and every descriptor that came with them.
  ///
  /// There is room for as many descriptors as the kernel passes, though a message of ours has 8 at most. What finds no room
  /// is closed by the kernel inside recvmsg(2): on the calling thread, for as long as its owner likes. So all are taken, and
  /// those that are too many go to the reaper. Its `hasRoom` bounds how many a VM can have open.
  public borrowing func receive(atMost limit: Int) throws(SystemError) -> Reception {
    precondition(limit > 0)
    var numbers = [CInt](repeating: -1, count: SL_MOST_DESCRIPTORS)
    var (count, foreign, code): (CInt, CInt, CInt) = (0, 0, 0)
    var received = 0
    let socket = descriptor.number
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, initialized in
      received = unsafe sl_unix_receive(socket, buffer.baseAddress, limit, &numbers, &count, &foreign)
      code = errno
      initialized = max(received, 0)
    }
    let descriptors = ReceivedDescriptors(adopting: numbers.prefix(Int(count)), descriptor.reaper)
    if received < 0 {
      if code == EAGAIN || code == EWOULDBLOCK { return .nothing }
      throw SystemError(.recvmsg, code: code)
    }
    if foreign != 0 { return .foreignControlData }
    return received == 0 ? .end : .bytes(bytes, descriptors)
  }

  /// Sends as many of the bytes as fit; nil if none do now.
  ///
  /// - Parameter descriptors: numbers of descriptors that the caller holds; they go with the first byte.
  public borrowing func send(_ bytes: ArraySlice<UInt8>, descriptors: [CInt] = []) throws(SystemError) -> Int? {
    let socket = descriptor.number
    let sent = unsafe bytes.withUnsafeBytes { bytes in
      unsafe sl_unix_send(socket, bytes.baseAddress, bytes.count, descriptors, CInt(descriptors.count))
    }
    if sent >= 0 { return sent }
    let code = errno
    if code == EAGAIN || code == EWOULDBLOCK { return nil }
    throw SystemError(.sendmsg, code: code)
  }

  /// Who had the other end at the time it was connected: a matter of policy, not a proof, for descriptors can be
  /// passed on. unix(7), SO_PEERCRED.
  public borrowing func peer() throws(SystemError) -> PeerCredentials {
    var (process, user, group): (Int32, UInt32, UInt32) = (0, 0, 0)
    guard unsafe sl_unix_peer(descriptor.number, &process, &user, &group) == 0 else { throw SystemError(.getsockopt) }
    return PeerCredentials(process: process, user: user, group: group)
  }
}

/// A process at the other end of a socket.
public struct PeerCredentials: Hashable, Sendable, CustomStringConvertible {
  public let process: Int32
  public let user: UInt32
  public let group: UInt32
  public var description: String { "process \(process), user \(user), group \(group)" }
}

/// Two sockets that are connected with each other.
public struct UnixStreamPair: ~Copyable, Sendable {
  public let first: UnixStream
  public let second: UnixStream

  public init() throws(SystemError) {
    var numbers: [CInt] = [-1, -1]
    guard unsafe sl_unix_pair(&numbers) == 0 else { throw SystemError(.socketpair) }
    first = UnixStream(OwnedDescriptor(adopting: numbers[0]))
    second = UnixStream(OwnedDescriptor(adopting: numbers[1]))
  }
}
