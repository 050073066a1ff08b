internal import Glibc
internal import Linux

/// A network namespace with nothing in it, for one thread: what a test makes there, and breaks, is nobody else's, and is
/// gone when the thread is. unshare(2).
public enum FreshNetwork {
  private final class Outcome: @unchecked Sendable {
    var isPossible = false
    var error: (any Error)?
  }

  /// Whether this process may have one, with a TAP device in it.
  public static let hasTap: Bool = {
    let outcome = Outcome()
    let thread = try? Thread(name: "network") {
      guard enter() else { return }
      if (try? TapDevice(name: "probe")) != nil { outcome.isPossible = true }
    }
    guard let thread else { return false }
    thread.join()
    return outcome.isPossible
  }()

  /// Runs `body` on a thread that is in one, and throws what it throws.
  public static func run(_ body: @escaping @Sendable () throws -> Void) throws {
    let outcome = Outcome()
    let thread = try Thread(name: "network") {
      guard enter() else {
        outcome.error = Mismatch("no network namespace: \(SystemError.text(errno))")
        return
      }
      do { try body() } catch { outcome.error = error }
    }
    thread.join()
    if let error = outcome.error { throw error }
  }

  /// Makes the calling thread nobody's. The C library would do so to every thread; the system call itself does it to one.
  public static func giveUpRights() throws {
    #if arch(x86_64)
      let setresuid = 117
    #else
      let setresuid = 147
    #endif
    guard let symbol = unsafe dlsym(nil, "syscall") else { throw Mismatch("no syscall") }
    let call = unsafe unsafeBitCast(symbol, to: (@convention(c) (Int, Int, Int, Int) -> Int).self)
    guard call(setresuid, -1, 65534, -1) == 0 else { throw Mismatch("setresuid: \(SystemError.text(errno))") }
  }

  /// CLONE_NEWNET is not a name that Swift sees, and neither is unshare.
  private static func enter() -> Bool {
    guard let symbol = unsafe dlsym(nil, "unshare") else { return false }
    let unshare = unsafe unsafeBitCast(symbol, to: (@convention(c) (CInt) -> CInt).self)
    return unshare(0x4000_0000) == 0
  }
}

/// Every frame that passes a link of this machine, and a way to put frames on it. packet(7).
public struct PacketSocket: ~Copyable {
  private let descriptor: OwnedDescriptor

  /// - Parameter link: by its name.
  public init(link: String) throws {
    let index = unsafe if_nametoindex(link)
    // ETH_P_ALL in network order; never blocking.
    let number = socket(AF_PACKET, Int32(SOCK_RAW.rawValue) | Int32(SOCK_NONBLOCK.rawValue), Int32(UInt16(3).bigEndian))
    guard number >= 0, index > 0 else { throw Mismatch("packet socket on \(link): \(SystemError.text(errno))") }
    let descriptor = OwnedDescriptor(adopting: number)
    // struct sockaddr_ll: family, protocol, interface, and what is not looked at.
    var address: [UInt8] = [UInt8(AF_PACKET), 0, 0, 3] + (0..<4).map { UInt8(truncatingIfNeeded: index >> (8 * $0)) }
    address += [UInt8](repeating: 0, count: 12)
    let bound = unsafe address.withUnsafeBytes { bytes in
      unsafe bind(number, bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self), socklen_t(bytes.count))
    }
    guard bound == 0 else { throw Mismatch("packet socket on \(link): bind: \(SystemError.text(errno))") }
    self.descriptor = descriptor
  }

  /// 0, or an errno.
  public func send(_ frame: [UInt8]) -> CInt {
    let count = unsafe frame.withUnsafeBytes { unsafe Glibc.send(descriptor.number, $0.baseAddress, $0.count, 0) }
    return count == frame.count ? 0 : errno
  }

  /// The next frame, or nil if there is none now.
  public func receive() -> [UInt8]? {
    var buffer = [UInt8](repeating: 0, count: 70_000)
    let count = unsafe buffer.withUnsafeMutableBytes { unsafe Glibc.recv(descriptor.number, $0.baseAddress, $0.count, 0) }
    return count > 0 ? Array(buffer[..<count]) : nil
  }
}
