import CLinux
import Glibc
import Linux
import Support
import Testing

@Suite struct LinuxTests {
  @Test func `a descriptor is closed once, when its owner goes away`() throws {
    let number: CInt
    let identity: UInt64?
    do {
      let file = try MemoryFile(name: "test", byteCount: 4096)
      number = file.descriptor.number
      identity = inode(of: number)
      #expect(identity != nil)
      #expect(fcntl(number, F_GETFD) & FD_CLOEXEC != 0)
    }
    // Somebody else may have been given the number by now, but not for this file.
    #expect(inode(of: number) != identity)
  }

  @Test func `a duplicate outlives the first`() throws {
    let file = try MemoryFile(name: "test", byteCount: 4096)
    let identity = inode(of: file.descriptor.number)
    let copy = try file.descriptor.duplicate()
    #expect(copy.number != file.descriptor.number)
    #expect(fcntl(copy.number, F_GETFD) & FD_CLOEXEC != 0)
    _ = consume file
    #expect(inode(of: copy.number) == identity)
    try copy.close()
  }

  private func inode(of number: CInt) -> UInt64? {
    var status = stat()
    return unsafe fstat(number, &status) == 0 ? UInt64(status.st_ino) : nil
  }

  @Test(arguments: [4096, 1 << 16, 2 << 20])
  func `a mapping is aligned as asked, and gives every page back`(alignment: Int) throws {
    let base: UInt
    do {
      let mapping = try Mapping(anonymousBytes: 1 << 28, alignment: alignment)
      base = UInt(bitPattern: unsafe mapping.base)
      #expect(base % UInt(alignment) == 0)
      #expect(isMapped(base, 1 << 28))
    }
    #expect(!isMapped(base, 1 << 28))
  }

  @Test func `an odd number of bytes is mapped as whole pages`() throws {
    let mapping = try Mapping(anonymousBytes: 5000)
    #expect(mapping.byteCount == 5000)
    #expect(isMapped(UInt(bitPattern: unsafe mapping.base), 8192))
  }

  @Test func `a mapping that the kernel refuses says which call, and leaves nothing`() throws {
    let before = addressSpaceBytes()
    var found: SystemError?
    do { _ = try Mapping(anonymousBytes: 1 << 50) } catch { found = error }
    #expect(found?.call == .mmap)
    #expect(found?.code == ENOMEM)
    // The reservation succeeds here, and the second call fails: no such descriptor may be mapped.
    let event = try EventDescriptor()
    found = nil
    do { _ = try Mapping(of: event.descriptor, byteCount: 1 << 40) } catch { found = error }
    #expect(found?.call == .mmap)
    #expect(addressSpaceBytes() - before < 1 << 39)
  }

  @Test func `an offset that is no page is refused`() throws {
    let file = try MemoryFile(name: "test", byteCount: 8192)
    var found: SystemError?
    do { _ = try Mapping(of: file.descriptor, byteCount: 4096, offset: 100) } catch { found = error }
    #expect(found == SystemError(.mmap, code: EINVAL))
  }

  @Test func `an event is raised many times and cleared once`() throws {
    let event = try EventDescriptor()
    let before = event.clear()
    for _ in 0..<3 { event.signal() }
    let (first, second) = (event.clear(), event.clear())
    #expect(!before && first && !second)
  }

  @Test func `an event that is full neither blocks nor is lost`() throws {
    let event = try EventDescriptor()
    var most = UInt64.max - 1
    let written = unsafe write(event.descriptor.number, &most, 8)
    #expect(written == 8)
    event.signal()
    let cleared = event.clear()
    #expect(cleared)
  }

  @Test func `a thread runs its body before join returns`() throws {
    let word = SharedWord()
    let thread = try Thread(name: "a name that is too long for it") { word.set(7) }
    thread.join()
    #expect(word.value == 7)
  }

  @Test func `a memory file has whole pages`() throws {
    let file = try MemoryFile(name: "test", byteCount: 4097)
    #expect(file.byteCount == 8192)
  }

  @Test func `the clock does not go back`() {
    var last = MonotonicClock.now()
    for _ in 0..<1000 {
      let now = MonotonicClock.now()
      #expect(now >= last)
      last = now
    }
  }

  @Test(.enabled(if: NUMA.isAvailable, "the machine does not tell its memory nodes"))
  func `pages come from the node that was asked for`() throws {
    for node in 0..<NUMA.nodeCount {
      let mapping = try Mapping(anonymousBytes: 4096)
      unsafe #expect(NUMA.node(ofPageAt: mapping.base) == nil)
      NUMA.prefer(node: node, for: mapping)
      unsafe mapping.base.storeBytes(of: 1, as: UInt8.self)
      unsafe #expect(NUMA.node(ofPageAt: mapping.base) == node)
    }
  }
}

struct NodeTests {
  @Test(.enabled(if: NUMA.isAvailable, "the machine does not tell its memory nodes"))
  func `a thread runs on the processors of the node that it was brought to`() throws {
    for node in 0..<NUMA.nodeCount where Thread.processors.contains(where: { NUMA.node(ofProcessor: $0) == node }) {
      let found = Answer()
      try Thread(name: "node") {
        guard NUMA.run(onNode: node) else { return }
        found.processors.withLock { $0 = (0..<1024).filter { sl_may_run_on(Int32($0)) != 0 } }
      }.join()
      #expect(found.processors.withLock(\.self) == Thread.processors.filter { NUMA.node(ofProcessor: $0) == node })
      #expect(NUMA.distance(node, node) == 10)
    }
    #expect(!NUMA.run(onNode: NUMA.nodeCount) && !NUMA.run(onNode: -1))
  }

  private final class Answer: Sendable { let processors = Mutex<[Int]>([]) }
}

struct AccountTests {
  @Test func `users and groups have names and numbers`() {
    #expect(Accounts.user("root") == 0 && Accounts.group("root") == 0)
    #expect(Accounts.user("4711") == 4711 && Accounts.group("4711") == 4711)
    #expect(unsafe Accounts.user("daemon") == getpwnam("daemon").pointee.pw_uid)
  }

  @Test(arguments: ["", "no-such-name", "-1", "+1", "0x1", "4294967295", "4294967296", " 0", "0 "])
  func `what is neither is nobody`(text: String) {
    #expect(Accounts.user(text) == nil && Accounts.group(text) == nil)
  }
}
