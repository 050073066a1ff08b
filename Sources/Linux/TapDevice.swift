internal import CLinux
internal import Glibc

/// A TAP device: an Ethernet link of this machine whose other end is this process. Linux, "Universal TUN/TAP device
/// driver".
///
/// Frames go in and out whole, one a call, without anything in front of them, and no call blocks. A device that was made
/// here goes away with its owner; one that was there before stays.
public struct TapDevice: ~Copyable, Sendable {
  public let descriptor: OwnedDescriptor
  /// As the kernel has it.
  public let name: String

  /// Attaches to the device of this name, or makes it.
  public init(name: String) throws(TapError) {
    let room = Int(sl_link_name_size())
    let bytes = Array(name.utf8)
    guard !bytes.isEmpty, bytes.allSatisfy({ $0 > 32 && $0 < 127 && !"/:%".utf8.contains($0) }), name != ".", name != ".."
    else { throw .badName(name) }
    guard bytes.count < room else { throw .nameTooLong(name, limit: room - 1) }
    let number = unsafe open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)
    guard number >= 0 else { throw errno == EACCES || errno == EPERM ? .notPermitted(name) : .noDriver(SystemError(.open)) }
    let descriptor = OwnedDescriptor(adopting: number)
    var found = bytes.map(CChar.init(bitPattern:)) + [CChar](repeating: 0, count: room - bytes.count)
    let code = unsafe found.withUnsafeMutableBufferPointer { unsafe sl_tap_attach(number, $0.baseAddress) }
    switch code {
    case 0: break
    case EPERM, EACCES: throw .notPermitted(name)
    case EBUSY: throw .inUse(name)
    case EINVAL: throw .notTap(name)
    default: throw .system(name, SystemError(.attachTap, code: code))
    }
    self.descriptor = descriptor
    self.name = String(decoding: found.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
  }

  /// Lets frames pass: sets the link up.
  public borrowing func bringUp() throws(TapError) {
    let code = unsafe sl_link_set_up(name)
    if code != 0 { throw code == EPERM ? .notPermitted(name) : .system(name, SystemError(.setLinkUp, code: code)) }
  }

  /// - Parameter mtu: bytes after the Ethernet header.
  public borrowing func setMTU(_ mtu: Int) throws(TapError) {
    let code = unsafe sl_link_set_mtu(name, CInt(clamping: mtu))
    if code != 0 { throw code == EPERM ? .notPermitted(name) : .system(name, SystemError(.setLinkMTU, code: code)) }
  }

  /// The next frame that the machine has sent, cut to the room there is; its bytes, or nil if there is none now.
  public borrowing func read(into buffer: UnsafeMutableRawBufferPointer) -> Int? {
    let count = unsafe Glibc.read(descriptor.number, buffer.baseAddress, buffer.count)
    return count > 0 ? count : nil
  }

  /// Gives the machine a frame. False: it did not take it; its link is down, or it has no room.
  public borrowing func write(_ frame: UnsafeRawBufferPointer) -> Bool {
    unsafe Glibc.write(descriptor.number, frame.baseAddress, frame.count) == frame.count
  }
}

/// Why there is no TAP device.
public enum TapError: Error, Hashable, Sendable, CustomStringConvertible {
  case badName(String)
  case nameTooLong(String, limit: Int)
  case notPermitted(String)
  /// Another process has it.
  case inUse(String)
  /// A link of this name is there, and is no TAP device, or one for several queues.
  case notTap(String)
  case noDriver(SystemError)
  case system(String, SystemError)

  public var description: String {
    switch self {
    case .badName(let name): "TAP device '\(name)': a name is printable ASCII without '/', ':', '%' and spaces"
    case .nameTooLong(let name, let limit): "TAP device \(name): the name is too long; \(limit) characters are possible"
    case .notPermitted(let name):
      "TAP device \(name): not permitted; run with CAP_NET_ADMIN, or let root make it for this user: ip tuntap add \(name) mode tap user NAME"
    case .inUse(let name): "TAP device \(name): another process has it"
    case .notTap(let name): "TAP device \(name): a link of this name is there already, and is no TAP device with one queue"
    case .noDriver(let error): "TAP devices: /dev/net/tun: \(error)"
    case .system(let name, let error): "TAP device \(name): \(error)"
    }
  }
}
