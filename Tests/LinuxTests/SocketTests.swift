import CLinux
import Glibc
import Linux
import Support
import Testing

/// Unix sockets: where they appear, who may connect, and what comes along with bytes.
@Suite struct SocketTests {
  /// A directory of its own, and what is left in it goes with it.
  final class Place {
    let directory: String
    init() throws {
      var name = Array("/tmp/sluice-test-XXXXXX".utf8CString)
      guard unsafe mkdtemp(&name) != nil else { throw SystemError(.bind) }
      directory = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    var path: String { directory + "/guest.sock" }
    deinit {
      for name in ["/guest.sock", "/guest.sock.new", "/link"] { _ = unsafe unlink(directory + name) }
      _ = unsafe rmdir(directory)
    }
    var isThere: Bool { unsafe access(path, F_OK) == 0 }

    /// What a process leaves that was killed.
    func leaveDeadSocket() throws {
      let number = sl_unix_socket()
      try check(unsafe sl_unix_bind(number, path) == 0 && sl_unix_listen(number, 1) == 0, "bind: \(errno)")
      close(number)
    }
  }

  private func some<T: ~Copyable>(_ found: consuming T?) throws -> T {
    guard let found else { throw Mismatch("nothing is there") }
    return found
  }

  private func refusal(at path: String) -> UnixListenerError? {
    do throws(UnixListenerError) { _ = try UnixListener(at: path) } catch { return error }
    return nil
  }

  @Test func `a socket appears with its mode, is connected to, and goes with its owner`() throws {
    let place = try Place()
    do {
      let listener = try UnixListener(at: place.path, UnixListener.Permissions(mode: 0o620, group: 7))
      var status = stat()
      unsafe #expect(lstat(place.path, &status) == 0)
      #expect(status.st_mode & 0o7777 == 0o620)
      #expect(geteuid() != 0 || status.st_gid == 7)
      let nobody = try listener.accept() == nil
      #expect(nobody)
      let client = try UnixStream(connectingTo: place.path)
      let server = try some(try listener.accept())
      #expect(try server.peer().user == geteuid())
      #expect(try server.peer().process == getpid())
      #expect(try client.send([1, 2, 3]) == 3)
      guard case .bytes(let bytes, let descriptors) = try server.receive(atMost: 10) else {
        Issue.record("no bytes")
        return
      }
      #expect(bytes == [1, 2, 3] && descriptors.isEmpty)
    }
    #expect(!place.isThere)
  }

  @Test func `what a dead process left is taken over, as often as it dies`() throws {
    let place = try Place()
    for _ in 0..<50 {
      try place.leaveDeadSocket()
      let listener = try UnixListener(at: place.path)
      _ = try UnixStream(connectingTo: place.path)
      _ = try some(try listener.accept())
    }
  }

  @Test func `a path that was taken over by another is left to it`() throws {
    let place = try Place()
    do {
      let listener = try UnixListener(at: place.path)
      unsafe #expect(unlink(place.path) == 0)
      try place.leaveDeadSocket()
      _ = listener.descriptor.number
    }
    #expect(place.isThere)
  }

  @Test func `nobody sees the path without a socket while it is taken over`() throws {
    let place = try Place()
    try place.leaveDeadSocket()
    let (done, missing) = (SharedWord(), SharedWord())
    let path = place.path
    let thread = try Thread(name: "connects") {
      while done.value == 0 {
        do throws(SystemError) { _ = try UnixStream(connectingTo: path) } catch { if error.code == ENOENT { missing.set(1) } }
      }
    }
    for _ in 0..<100 {
      // What a listener does but for its end, which takes the path away.
      let number = sl_unix_socket()
      unsafe #expect(sl_unix_bind(number, path + ".new") == 0 && rename(path + ".new", path) == 0)
      close(number)
    }
    let listener = try UnixListener(at: path)
    done.set(1)
    thread.join()
    #expect(missing.value == 0)
    _ = listener.descriptor.number
  }

  @Test func `a path that is a file, somebody else's, or answered, is left alone`() throws {
    let place = try Place()
    let file = unsafe open(place.path, O_CREAT | O_RDWR, 0o600)
    close(file)
    #expect(refusal(at: place.path) == .notASocket(place.path))
    #expect(place.isThere)
    _ = unsafe unlink(place.path)
    // A link to a dead socket is not followed either.
    try place.leaveDeadSocket()
    unsafe #expect(rename(place.path, place.directory + "/link") == 0)
    unsafe #expect(symlink(place.directory + "/link", place.path) == 0)
    #expect(refusal(at: place.path) == .notASocket(place.path))
    _ = unsafe unlink(place.path)
    let listener = try UnixListener(at: place.path)
    #expect(refusal(at: place.path) == .inUse(place.path))
    _ = try UnixStream(connectingTo: place.path)
    _ = try some(try listener.accept())
    if geteuid() == 0 {
      let other = try Place()
      try other.leaveDeadSocket()
      unsafe #expect(lchown(other.path, 12345, 12345) == 0)
      #expect(refusal(at: other.path) == .notOurs(other.path, owner: 12345))
      #expect(other.isThere)
    }
  }

  @Test func `a path that cannot be is refused with its reason`() throws {
    let place = try Place()
    let long = place.directory + "/" + String(repeating: "x", count: 100)
    #expect(refusal(at: long) == .pathTooLong(long, limit: 103))
    let missing = place.directory + "/none/guest.sock"
    #expect(refusal(at: missing) == .system(missing, SystemError(.bind, code: ENOENT)))
    let unowned = UnixListener.Permissions(owner: 0, group: 0)
    if geteuid() != 0 {
      #expect(throws: UnixListenerError.self) { _ = try UnixListener(at: place.path, unowned) }
      #expect(!place.isThere)
    }
  }

  @Test func `a directory that others may write to is told`() throws {
    let place = try Place()
    try UnixListener.checkDirectory(of: place.path)
    for mode in [0o720, 0o702, 0o777] as [UInt32] {
      unsafe #expect(chmod(place.directory, mode_t(mode)) == 0)
      #expect(throws: UnixListenerError.openDirectory(place.directory, mode: mode)) {
        try UnixListener.checkDirectory(of: place.path)
      }
    }
    unsafe #expect(chmod(place.directory, 0o750) == 0)
    unsafe #expect(symlink("/tmp", place.directory + "/link") == 0)
    #expect(throws: UnixListenerError.notADirectory(place.directory + "/link")) {
      try UnixListener.checkDirectory(of: place.directory + "/link/guest.sock")
    }
    #expect(throws: UnixListenerError.self) { try UnixListener.checkDirectory(of: place.directory + "/none/guest.sock") }
  }

  @Test func `whoever comes while another is served is turned away`() throws {
    let place = try Place()
    let listener = try UnixListener(at: place.path, backlog: 1000)
    var clients: [CInt] = []
    for _ in 0..<200 {
      let number = sl_unix_socket()
      unsafe #expect(sl_unix_connect(number, place.path) == 0)
      clients.append(number)
    }
    let first = try some(try listener.accept())
    var away = 0
    while case let count = try listener.turnAway(), count > 0 { away += count }
    #expect(away == 199)
    // The first is connected; all others see the end.
    var byte: UInt8 = 0
    for (n, client) in clients.enumerated() {
      let got = unsafe recv(client, &byte, 1, CInt(MSG_DONTWAIT))
      #expect(n == 0 ? got < 0 : got <= 0 && (got == 0 || errno != EAGAIN), "client \(n)")
      close(client)
    }
    _ = first.descriptor.number
  }

  // MARK: Descriptors

  private func identity(_ number: CInt) -> UInt64? {
    var status = stat()
    return unsafe fstat(number, &status) == 0 ? UInt64(status.st_ino) : nil
  }

  @Test func `descriptors arrive in their order, close-on-exec, and those that nobody takes are closed`() throws {
    let pair = try UnixStreamPair()
    let files = [try MemoryFileBox(), try MemoryFileBox(), try MemoryFileBox()]
    #expect(try pair.first.send([9], descriptors: files.map(\.number)) == 1)
    var numbers: [CInt] = []
    do {
      guard case .bytes([9], var descriptors) = try pair.second.receive(atMost: 100) else {
        Issue.record("no bytes")
        return
      }
      #expect(descriptors.count == 3)
      for file in files.prefix(2) {
        let taken = try some(descriptors.takeFirst())
        #expect(identity(taken.number) == identity(file.number))
        #expect(fcntl(taken.number, F_GETFD) & FD_CLOEXEC != 0)
        numbers.append(taken.number)
      }
      #expect(descriptors.count == 1)
    }
    for (number, file) in zip(numbers, files) { #expect(identity(number) != identity(file.number)) }
  }

  final class MemoryFileBox {
    private let file: MemoryFile
    init() throws { file = try MemoryFile(name: "test", byteCount: 4096) }
    var number: CInt { file.descriptor.number }
  }

  @Test func `control data that is not descriptors is refused, with the descriptors that came along closed`() throws {
    let pair = try UnixStreamPair()
    var on: CInt = 1
    unsafe #expect(setsockopt(pair.second.descriptor.number, SOL_SOCKET, SO_PASSCRED, &on, 4) == 0)
    let pipe = try PipeBox()
    #expect(try pair.first.send([1], descriptors: [pipe.write]) == 1)
    pipe.closeWrite()
    guard case .foreignControlData = try pair.second.receive(atMost: 10) else {
      Issue.record("credentials were taken")
      return
    }
    // Nobody has the writing end any more.
    #expect(pipe.isAtEnd)
  }

  @Test func `as many descriptors as the kernel passes are taken, and closed`() throws {
    let pair = try UnixStreamPair()
    let pipe = try PipeBox()
    #expect(try pair.first.send([1], descriptors: [CInt](repeating: pipe.write, count: 253)) == 1)
    pipe.closeWrite()
    do {
      guard case .bytes(_, let descriptors) = try pair.second.receive(atMost: 10) else {
        Issue.record("no bytes")
        return
      }
      #expect(descriptors.count == 253)
      #expect(!pipe.isAtEnd)
    }
    #expect(pipe.isAtEnd)
    #expect(throws: SystemError(.sendmsg, code: EINVAL)) { _ = try pair.first.send([1], descriptors: [CInt](repeating: 0, count: 254)) }
  }

  final class PipeBox {
    private var ends: [CInt] = [-1, -1]
    init() throws {
      guard unsafe pipe(&ends) == 0 else { throw SystemError(.pipe) }
      _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
    }
    var write: CInt { ends[1] }
    func closeWrite() {
      close(ends[1])
      ends[1] = -1
    }
    var isAtEnd: Bool {
      var byte: UInt8 = 0
      return unsafe read(ends[0], &byte, 1) == 0
    }
    deinit { for end in ends where end >= 0 { close(end) } }
  }

  @Test func `nothing there, the end, and a peer that is gone are three things`() throws {
    let pair = try UnixStreamPair()
    guard case .nothing = try pair.first.receive(atMost: 1) else {
      Issue.record("something")
      return
    }
    let first = try UnixStream(adopting: pair.first.descriptor.duplicate())
    _ = consume pair
    guard case .end = try first.receive(atMost: 1) else {
      Issue.record("no end")
      return
    }
    // No SIGPIPE either, which would end this process.
    #expect(throws: SystemError(.sendmsg, code: EPIPE)) { _ = try first.send([1]) }
  }

  @Test(.timeLimit(.minutes(1)))
  func `a socket that is full says so and blocks nobody, whoever makes it blocking again`() throws {
    let pair = try UnixStreamPair()
    for number in [pair.first.descriptor.number, pair.second.descriptor.number] { _ = fcntl(number, F_SETFL, 0) }
    let block = [UInt8](repeating: 7, count: 4096)
    var sent = 0
    while let count = try pair.first.send(block[...]) { sent += count }
    #expect(sent > 4096)
    var received = 0
    while case .bytes(let bytes, _) = try pair.second.receive(atMost: 100_000) { received += bytes.count }
    #expect(received == sent)
  }

  // MARK: Readiness

  @Test func `a poller tells what is ready by its token, for as long as it is`() throws {
    let poller = try Poller()
    let pair = try UnixStreamPair()
    let event = try EventDescriptor()
    try poller.add(pair.first.descriptor.number, for: .read, token: .max)
    try poller.add(event.descriptor.number, for: .read, token: 5)
    #expect(try poller.wait(milliseconds: 0).isEmpty)
    event.signal()
    for _ in 0..<2 {
      let ready = try poller.wait(milliseconds: nil)
      #expect(ready.map(\.token) == [5] && ready[0].isReadable && !ready[0].isWritable && !ready[0].isClosed)
    }
    event.clear()
    try poller.modify(pair.first.descriptor.number, for: [.read, .write], token: 6)
    let ready = try poller.wait(milliseconds: 0)
    #expect(ready.map(\.token) == [6] && ready[0].isWritable && !ready[0].isReadable)
    try poller.modify(pair.first.descriptor.number, for: [], token: 7)
    #expect(try poller.wait(milliseconds: 0).isEmpty)
    shutdown(pair.second.descriptor.number, CInt(SHUT_RDWR))
    #expect(try poller.wait(milliseconds: 0).first?.isClosed == true)
    try poller.remove(pair.first.descriptor.number)
    #expect(try poller.wait(milliseconds: 0).isEmpty)
    #expect(throws: SystemError(.epollControl, code: ENOENT)) { try poller.remove(pair.first.descriptor.number) }
  }

  @Test func `a descriptor says what it is`() throws {
    let memory = try MemoryFile(name: "test", byteCount: 8192)
    let status = try #require(try memory.descriptor.memoryStatus())
    #expect(status.fileSystem == .sharedMemory && status.access == .both)
    #expect(status.byteCount == 8192 && status.pageByteCount == 4096 && !status.isSealedAgainstShrinking)
    #expect(sl_add_seals(memory.descriptor.number, sl_seal_shrink()) == 0)
    #expect(try memory.descriptor.memoryStatus()?.isSealedAgainstShrinking == true)
    #expect(try memory.descriptor.memoryStatus()?.inode == status.inode)
    #expect(try memory.descriptor.kind() == .memory)
    let onTmpfs = OwnedDescriptor(adopting: unsafe open("/dev/shm/sluice-kind-\(getpid())", O_RDWR | O_CREAT, 0o600))
    #expect(try onTmpfs.kind() == .memory)
    unsafe unlink("/dev/shm/sluice-kind-\(getpid())")
    let event = try EventDescriptor()
    #expect(try event.descriptor.kind() == .event)
    #expect(event.clear() == false, "asking does not raise it")
    #expect(try event.descriptor.memoryStatus() == nil)
    let poller = OwnedDescriptor(adopting: sl_poller())
    #expect(try poller.kind() == .anonymous)
    let pair = try UnixStreamPair()
    let isStream = pair.first.descriptor.isUnixStream
    #expect(isStream)
    #expect(try pair.first.descriptor.kind() == .socket)
    var ends: [CInt] = [-1, -1]
    unsafe #expect(pipe(&ends) == 0)
    let read = OwnedDescriptor(adopting: ends[0])
    let write = OwnedDescriptor(adopting: ends[1])
    #expect(try read.kind() == .pipe && write.kind() == .pipe)
    for (name, flags, kind) in [
      ("/dev/zero", O_RDONLY, .other), (#filePath, O_RDONLY, .other), ("/dev/shm", O_RDONLY, .other), ("/", sl_flag_path(), .path),
    ] as [(String, CInt, FileStatus.Kind)] {
      let descriptor = OwnedDescriptor(adopting: unsafe open(name, flags))
      #expect(try descriptor.kind() == kind, "\(name)")
      #expect(try descriptor.memoryStatus() == nil, "\(name)")
    }
  }

  /// A file's name is its owner's choice.
  @Test func `a file that is called as an eventfd is none`() throws {
    let place = "/tmp/anon_inode:[eventfd]"
    let file = OwnedDescriptor(adopting: unsafe open(place, O_RDWR | O_CREAT, 0o600))
    unsafe unlink(place)
    #expect(try file.kind() != .event)
    let named = try MemoryFile(name: "anon_inode:[eventfd]", byteCount: 4096)
    #expect(try named.descriptor.kind() == .memory)
  }

  @Test func `two sockets that were made connected are told from the end of a connection through a listener`() throws {
    let pair = try UnixStreamPair()
    let isPair = pair.first.descriptor.isUnnamedPair
    #expect(isPair)
    let place = try Place()
    let listener = try UnixListener(at: place.path)
    let client = try UnixStream(connectingTo: place.path)
    let server = try some(try listener.accept())
    let (atClient, atServer, listens) = (client.descriptor.isUnnamedPair, server.descriptor.isUnnamedPair, listener.descriptor.isUnnamedPair)
    #expect(!atClient && !atServer && !listens)
    let lone = OwnedDescriptor(adopting: sl_unix_socket())
    let isLonePair = lone.isUnnamedPair
    #expect(!isLonePair)
  }
}
