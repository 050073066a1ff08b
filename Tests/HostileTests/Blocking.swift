import Foundation
import Linux

@testable import Control

/// A TCP socket whose last close waits for an hour, for its peer does not take its bytes. socket(7), SO_LINGER.
final class Lingering: @unchecked Sendable {
  private(set) var number: Int32
  private let peer: Mutex<Int32>

  init() throws {
    func small(_ number: Int32, _ option: Int32) {
      var bytes: Int32 = 4096
      setsockopt(number, SOL_SOCKET, option, &bytes, 4)
    }
    let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    let client = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    small(listener, SO_RCVBUF)
    small(client, SO_SNDBUF)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let isConnected = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        bind(listener, address, length) == 0 && listen(listener, 1) == 0 && getsockname(listener, address, &length) == 0
          && connect(client, address, length) == 0
      }
    }
    let accepted = accept(listener, nil, nil)
    close(listener)
    guard isConnected, accepted >= 0 else { throw Broken("no TCP connection: errno \(errno)") }
    let bytes = [UInt8](repeating: 120, count: 65536)
    while Glibc.send(client, bytes, bytes.count, Int32(MSG_DONTWAIT)) > 0 {}
    var wait = linger(l_onoff: 1, l_linger: 3600)
    setsockopt(client, SOL_SOCKET, SO_LINGER, &wait, socklen_t(MemoryLayout<linger>.size))
    number = client
    peer = Mutex(accepted)
  }
  deinit { release() }

  /// Closes the test's own descriptor, which is not the last one.
  func letGo() {
    if number >= 0 { close(number) }
    number = -1
  }
  /// Lets whoever closes the socket go on.
  func release() {
    peer.withLock { peer in
      if peer >= 0 { close(peer) }
      peer = -1
    }
  }
  var isReleased: Bool { peer.withLock { $0 < 0 } }
}

/// A file system whose server is this test: what it is asked is noted, and answered or not. Linux, <linux/fuse.h>.
final class FuseServer: @unchecked Sendable {
  private let device: Int32
  private let folder: String
  private struct State {
    var holds = false
    var asked: [UInt32] = []
    var held: [(unique: UInt64, opcode: UInt32)] = []
  }
  private let state = Mutex(State())
  static let flush: UInt32 = 25, interrupt: UInt32 = 36

  /// Nil if this process may not mount one.
  init?() {
    folder = NSTemporaryDirectory() + "hostile-fuse-\(UInt32.random(in: 0 ... .max))"
    device = Glibc.open("/dev/fuse", O_RDWR | O_CLOEXEC)
    guard device >= 0, mkdir(folder, 0o700) == 0 else { return nil }
    // MS_NOSUID, MS_NODEV
    guard mount("hostile", folder, "fuse", 6, "fd=\(device),rootmode=40000,user_id=0,group_id=0") == 0 else {
      close(device)
      rmdir(folder)
      return nil
    }
    Thread.detachNewThread { [self] in serve() }
  }

  /// Its only file.
  func file() -> Handle { .open(folder + "/f", O_RDWR) }

  /// Answers nothing from now on.
  func hold() { state.withLock { $0.holds = true; $0.asked = [] } }
  /// What it was asked since then.
  var asked: [UInt32] { state.withLock { $0.asked } }
  /// Answers all that waits, and goes on.
  func release() {
    let held = state.withLock { state in
      defer { (state.holds, state.held) = (false, []) }
      return state.held
    }
    for request in held { reply(request.unique, request.opcode, node: 2) }
  }
  /// Requests that wait are answered with an error by the kernel.
  func end() {
    release()
    umount2(folder, 2 /* MNT_DETACH */)
    rmdir(folder)
  }

  private func serve() {
    var buffer = [UInt8](repeating: 0, count: 1 << 17)
    while true {
      let count = read(device, &buffer, buffer.count)
      if count < 0 && (errno == EINTR || errno == ENOENT) { continue }
      guard count >= 40 else { break }
      let (opcode, unique, node) = (UInt32(number(buffer[4..<8])), number(buffer[8..<16]), number(buffer[16..<24]))
      // FORGET, INTERRUPT and BATCH_FORGET have no answer.
      if [2, 36, 42].contains(opcode) { continue }
      let isHeld = state.withLock { state in
        guard state.holds, node == 2 else { return false }
        state.asked.append(opcode)
        state.held.append((unique, opcode))
        return true
      }
      if !isHeld { reply(unique, opcode, node: node, name: buffer[40..<count].prefix { $0 != 0 }) }
    }
    close(device)
  }

  private func reply(_ unique: UInt64, _ opcode: UInt32, node: UInt64, name: ArraySlice<UInt8> = []) {
    let attributes = { (node: UInt64) -> [UInt8] in
      // ino, size, blocks, three times; their nanoseconds; mode, nlink, uid, gid, rdev, blksize, flags.
      littleEndian(node, UInt64(65536), UInt64(128), UInt64(0), UInt64(0), UInt64(0), UInt32(0), UInt32(0), UInt32(0))
        + littleEndian(UInt32(node == 1 ? 0o40777 : 0o100666), UInt32(1), UInt32(0), UInt32(0), UInt32(0), UInt32(4096), UInt32(0))
    }
    var body: [UInt8] = []
    var code: Int32 = 0
    switch opcode {
    case 26:  // INIT: 7.31, no flags, max_write 4096
      body = littleEndian(UInt32(7), UInt32(31), UInt32(0), UInt32(0), UInt32(0), UInt32(4096), UInt32(1), UInt32(0))
      body += [UInt8](repeating: 0, count: 64 - body.count)
    case 1:  // LOOKUP
      if name == [UInt8(ascii: "f")] { body = littleEndian(UInt64(2), UInt64(0), UInt64(0), UInt64(0), UInt32(0), UInt32(0)) + attributes(2) } else { code = -ENOENT }
    case 3: body = littleEndian(UInt64(0), UInt32(0), UInt32(0)) + attributes(node)  // GETATTR
    case 14: body = littleEndian(UInt64(0), UInt32(0), UInt32(0))  // OPEN
    case 17: body = [UInt8](repeating: 0, count: 80)  // STATFS
    case 18, 25: break  // RELEASE, FLUSH
    default: code = -ENOSYS
    }
    let bytes = littleEndian(UInt32(16 + body.count), code, unique) + body
    _ = write(device, bytes, bytes.count)
  }
}

extension Stage {
  /// Keeps the control thread busy while `body` prepares something.
  func whileControlThreadIsBusy(_ body: () throws -> Void) rethrows {
    let (isThere, mayGo) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
    service.onControlThread { _ in
      isThere.signal()
      mayGo.wait()
    }
    isThere.wait()
    defer { mayGo.signal() }
    try body()
  }
}

/// Whether some reaper of this process sleeps in close(2). The descriptor's number is free by then, and only the call is left.
/// Its system call's number is the first word of proc(5)'s syscall.
func isSomethingBeingClosed() -> Bool {
  #if arch(x86_64)
    let close = "3"
  #else
    let close = "57"
  #endif
  func text(_ task: String, _ name: String) -> String { (try? String(contentsOfFile: "/proc/self/task/\(task)/\(name)", encoding: .utf8)) ?? "" }
  let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []
  return tasks.contains { text($0, "comm") == "reaper\n" && text($0, "syscall").split(separator: " ").first == close[...] }
}
