import CLinux
import Foundation
import Linux

/// A descriptor of the test's own, closed with it.
final class Handle: Sendable {
  let number: Int32
  init(_ number: Int32) {
    precondition(number >= 0, "no descriptor: errno \(errno)")
    self.number = number
  }
  deinit { Glibc.close(number) }

  static func event() -> Handle { Handle(sl_eventfd()) }
  private static let counter = Mutex(0)
  /// Shared memory, of a name that nothing else has and that begins with `name`.
  static func file(_ name: String, byteCount: Int, seals: Bool = false) -> Handle {
    let number = counter.withLock { $0 += 1; return $0 }
    let handle = Handle(sl_memfd_create("\(name).\(number)", sl_mfd_cloexec() | (seals ? sl_mfd_allow_sealing() : 0)))
    precondition(ftruncate(handle.number, off_t(byteCount)) == 0)
    return handle
  }
  /// O_PATH, as <fcntl.h> has it.
  static let pathOnly: Int32 = 0x20_0000
  static func open(_ path: String, _ flags: Int32) -> Handle { Handle(Glibc.open(path, flags | O_CLOEXEC)) }
  static func pipe() -> (read: Handle, write: Handle) {
    var ends: [Int32] = [-1, -1]
    precondition(Glibc.pipe(&ends) == 0)
    return (Handle(ends[0]), Handle(ends[1]))
  }
  static func pair() -> (Handle, Handle) {
    var ends: [Int32] = [-1, -1]
    precondition(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
    return (Handle(ends[0]), Handle(ends[1]))
  }

  /// Reads an eventfd's counter; nil if it was not raised.
  func take() -> UInt64? {
    var value: UInt64 = 0
    return read(number, &value, 8) == 8 ? value : nil
  }
  func raise() {
    var one: UInt64 = 1
    _ = write(number, &one, 8)
  }
}

/// Who in this process holds what. Other tests may open and close what they like meanwhile: things are told apart by what
/// they are, not counted.
enum Holders {
  /// What a descriptor leads to, in the kernel's words; nil if there is none, or if others may have the like of it.
  private static func identity(of name: UnsafePointer<CChar>) -> String? {
    var buffer = [CChar](repeating: 0, count: 512)
    let link = buffer.withUnsafeMutableBufferPointer { readlinkat(links, name, $0.baseAddress!, 511) }
    guard link > 0 else { return nil }
    guard strncmp(buffer, "anon_inode:[eventfd", 19) == 0 else {
      let isOurs = ours.contains { strncmp(buffer, $0, strlen($0)) == 0 }
      return isOurs ? buffer.withUnsafeBufferPointer { String(cString: $0.baseAddress!) } : nil
    }
    let file = openat(numbers, name, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return nil }
    defer { close(file) }
    let count = buffer.withUnsafeMutableBytes { read(file, $0.baseAddress!, 511) }
    guard count > 0 else { return nil }
    buffer[count] = 0
    guard let start = strstr(buffer, "eventfd-id:") else { return nil }
    return String(cString: start).split(separator: "\n").first.map(String.init)
  }
  private static let links = Glibc.open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
  private static let numbers = Glibc.open("/proc/self/fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
  private static let ours = ["pipe:", "socket:", "/memfd:hostile", NSTemporaryDirectory() + "hostile"]

  /// Those of some descriptors that are not the only ones that lead where they lead: somebody else has another.
  static func shared(_ handles: [Handle]) -> [String] {
    let directory = opendir("/proc/self/fd")!
    defer { closedir(directory) }
    var counts: [String: Int] = [:]
    while let entry = readdir(directory) {
      withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { name in
          if let identity = identity(of: name) { counts[identity, default: 0] += 1 }
        }
      }
    }
    return Set(handles.compactMap { identity(of: String($0.number)) }).filter { counts[$0]! > 1 }.sorted()
  }

  /// Mappings of this process of a file that has `name` in its own.
  static func mappings(_ name: String) -> Int {
    let text = list()
    return text.withUnsafeBytes { text in
      var (count, at) = (0, 0)
      while let found = memmem(text.baseAddress! + at, text.count - at, name, name.utf8.count) {
        count += 1
        at = UnsafeRawPointer(found) - text.baseAddress! + 1
      }
      return count
    }
  }
  /// Where they begin.
  static func places(_ name: String) -> [UInt64] {
    let lines = String(decoding: list(), as: UTF8.self).split(separator: "\n")
    return lines.filter { $0.contains(name) }.compactMap { UInt64($0.prefix { $0 != "-" }, radix: 16) }
  }
  private static func list() -> [UInt8] {
    // By large reads: between two of them the list may change.
    var text = [UInt8](repeating: 0, count: 256 << 10)
    let file = Glibc.open("/proc/self/maps", O_RDONLY | O_CLOEXEC)
    defer { close(file) }
    var length = 0
    while length < text.count {
      let count = text.withUnsafeMutableBytes { Glibc.read(file, $0.baseAddress! + length, $0.count - length) }
      if count <= 0 { break }
      length += count
    }
    return Array(text[..<length])
  }

  /// All descriptors of this process.
  static var descriptorCount: Int { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd"))?.count ?? 0 }
}

/// Waits until something is so. The time only bounds how long a failure takes.
func eventually(within seconds: Double = 5, _ condition: () -> Bool) -> Bool {
  let end = Date(timeIntervalSinceNow: seconds)
  while true {
    if condition() { return true }
    if Date() > end { return false }
    usleep(500)
  }
}
func eventually(within seconds: Double = 5, _ condition: () async -> Bool) async -> Bool {
  let end = Date(timeIntervalSinceNow: seconds)
  while true {
    if await condition() { return true }
    if Date() > end { return false }
    try? await Task.sleep(nanoseconds: 500_000)
  }
}

/// SplitMix64, as its authors give it.
struct Dice: RandomNumberGenerator {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
    return z ^ z >> 31
  }

  /// The run's seed: SEED in the environment repeats one.
  static let seed: UInt64 = {
    let seed = ProcessInfo.processInfo.environment["SEED"].flatMap(UInt64.init) ?? UInt64.random(in: 1...UInt64(UInt32.max))
    print("HostileTests: SEED=\(seed)")
    return seed
  }()
}
