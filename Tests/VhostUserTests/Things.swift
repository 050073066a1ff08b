import CLinux
import Glibc
import Linux
import Support

/// Files and events as a front-end makes them, and who holds them.
final class Things {
  private var opened: [CInt] = []
  deinit { for number in opened { close(number) } }

  private func keep(_ number: CInt) throws -> CInt {
    try check(number >= 0, "no descriptor: \(errno)")
    opened.append(number)
    return number
  }

  /// A memfd of so many bytes.
  func memory(_ byteCount: Int, seals: CInt = 0) throws -> CInt {
    let file = try MemoryFile(name: "guest", byteCount: max(byteCount, 1))
    let number = try copy(of: file.descriptor.number)
    try check(ftruncate(number, off_t(byteCount)) == 0, "ftruncate")
    if seals != 0 { try check(fcntl(number, 1033, seals) == 0, "F_ADD_SEALS") }
    return number
  }
  func copy(of number: CInt) throws -> CInt { try keep(fcntl(number, F_DUPFD_CLOEXEC, 0)) }
  func event() throws -> CInt { try keep(sl_eventfd()) }
  func blockingEvent() throws -> CInt { try keep(eventfd(0, 0o2000000)) }
  func open(_ path: String, _ flags: CInt) throws -> CInt { try keep(Glibc.open(path, flags | O_CLOEXEC)) }
  func pipe() throws -> (read: CInt, write: CInt) {
    var ends: [CInt] = [-1, -1]
    try check(Glibc.pipe(&ends) == 0, "pipe")
    return (try keep(ends[0]), try keep(ends[1]))
  }
  func sockets() throws -> (CInt, CInt) {
    var ends: [CInt] = [-1, -1]
    try check(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0, &ends) == 0, "socketpair")
    return (try keep(ends[0]), try keep(ends[1]))
  }
  func epoll() throws -> CInt { try keep(sl_poller()) }

  /// One of each kind that is not memory to be mapped; two are of `memory`'s file, and may not write.
  func noMemory(but memory: CInt) throws -> [CInt] {
    let pipe = try pipe()
    // A file of this package: it could be on a file system whose server never answers.
    let onDisk = (try? open(#filePath, O_RDWR)) ?? pipe.write
    return [
      onDisk, try open("/dev/zero", O_RDWR), try open("/", O_RDONLY), try open(#filePath, O_RDONLY), pipe.read,
      try sockets().0, try event(), try open("/proc/self/fd/\(memory)", O_RDONLY),
      try open("/proc/self/fd/\(memory)", 0o10000000),  // O_PATH
      try self.memory(1 << 20, seals: 8),  // F_SEAL_WRITE
    ]
  }

  /// Whether an event was raised; takes it.
  static func wasRaised(_ number: CInt) -> Bool {
    var value: UInt64 = 0
    return read(number, &value, 8) == 8
  }
}

/// How many descriptors of this process are of the same file as one of them. Other tests run at the same time, so that
/// a mere count of descriptors says nothing.
func holders(of number: CInt) -> Int {
  guard let wanted = identity(number) else { return 0 }
  return numbers().count { identity($0) == wanted }
}

private func numbers() -> [CInt] {
  guard let folder = opendir("/proc/self/fd") else { return [] }
  defer { closedir(folder) }
  var result: [CInt] = []
  while let entry = readdir(folder) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) { $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) } }
    if let number = CInt(name) { result.append(number) }
  }
  return result
}

/// An event descriptor's number in the kernel, or device and inode.
private func identity(_ number: CInt) -> String? {
  var status = stat()
  guard fstat(number, &status) == 0 else { return nil }
  if status.st_mode & S_IFMT != 0 { return "\(status.st_dev) \(status.st_ino)" }
  guard let file = fopen("/proc/self/fdinfo/\(number)", "re") else { return nil }
  defer { fclose(file) }
  var line = [CChar](repeating: 0, count: 256)
  while fgets(&line, 256, file) != nil {
    let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    if text.hasPrefix("eventfd-id:") { return text }
  }
  return nil
}

/// How many bytes of a file are mapped into this process.
func mappedBytes(of number: CInt) -> Int {
  var status = stat()
  guard fstat(number, &status) == 0, let file = fopen("/proc/self/maps", "re") else { return 0 }
  defer { fclose(file) }
  var line = [CChar](repeating: 0, count: 1024)
  var total = 0
  while fgets(&line, 1024, file) != nil {
    let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let words = text.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
    guard words.count >= 5, UInt64(words[4]) == UInt64(status.st_ino) else { continue }
    let ends = words[0].split(separator: "-").compactMap { Int($0, radix: 16) }
    if ends.count == 2 { total += ends[1] - ends[0] }
  }
  return total
}
