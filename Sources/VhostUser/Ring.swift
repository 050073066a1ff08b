public import GuestMemory
internal import Linux
internal import Virtio

/// What a front-end has said of one ring, and whether it runs. vhost-user, "Ring states".
///
/// Nothing is forgotten because it came early: messages may come in any order, and the ring starts when the last
/// that it needs is there.
struct Ring {
  /// Entries. SET_VRING_NUM.
  var size: Int?
  /// SET_VRING_ADDR.
  var address: VringAddress?
  /// SET_VRING_BASE's word, or what the ring came to when it was stopped. vhost-user, "Vring descriptor indices".
  var base: UInt32?
  var kick = Kick.notYet
  var call: SharedDescriptor?
  var error: SharedDescriptor?
  var isEnabled = false
  /// Started, and not stopped since.
  private(set) var running: Running?
  /// On this connection, and since the last reset.
  private(set) var hasRun = false
  /// The last attempt failed, and nothing that it depends on has changed.
  var wasRefused = false

  enum Kick {
    case notYet
    /// SET_VRING_KICK without a descriptor: look by yourself.
    case polled
    case descriptor(SharedDescriptor)
  }

  /// How a ring that runs was started.
  struct Running: Hashable {
    let isPacked: Bool
    let layout: RingLayout
    /// Where writes to its used ring are marked.
    var logAddress: GuestAddress?
  }

  var isRunning: Bool { running != nil }
  /// All messages that it needs have come.
  var isComplete: Bool {
    if case .notYet = kick { return false }
    return size != nil && address != nil
  }
  mutating func didStart(_ how: Running) {
    running = how
    hasRun = true
  }
  mutating func setLogAddress(_ address: GuestAddress?) { running?.logAddress = address }

  /// It goes on where it came to. It starts again when it is kicked off again.
  mutating func didStop(at base: RingBase, forgettingKick: Bool) {
    guard let how = running else { return }
    self.base = base.word(isPacked: how.isPacked)
    running = nil
    if forgettingKick { kick = .notYet }
  }

  /// As it was when the front-end connected, but for what a front-end says only once: its call and error descriptors.
  mutating func reset() {
    let (call, error) = (call, error)
    self = Ring()
    (self.call, self.error) = (call, error)
  }
}

extension VringAddress {
  /// VHOST_VRING_F_LOG
  static let logFlag: UInt32 = 1
  var logsUsedRing: Bool { flags & Self.logFlag != 0 }

  /// Whether the ring lies where the other one does; what is logged may differ.
  func isSamePlace(as other: VringAddress) -> Bool {
    descriptor == other.descriptor && used == other.used && available == other.available
  }
}

extension RingBase {
  /// A base as the front-end gives it; nil if reserved bits are set, or an index is not of this ring.
  ///
  /// A packed ring's word without its upper half is DPDK's: it means that both indices are the same, and at the start.
  init?(word: UInt32, isPacked: Bool, size: Int) {
    let (low, high) = (UInt16(truncatingIfNeeded: word), UInt16(truncatingIfNeeded: word >> 16))
    guard isPacked else {
      guard high == 0 else { return nil }
      self.init(split: low)
      return
    }
    let used = word == 0x8000 ? low : high
    guard Int(low & 0x7FFF) < size, Int(used & 0x7FFF) < size else { return nil }
    self.init(available: low & 0x7FFF, availableWrap: low >> 15 == 1, used: used & 0x7FFF, usedWrap: used >> 15 == 1)
  }

  func word(isPacked: Bool) -> UInt32 {
    guard isPacked else { return UInt32(available) }
    let low = UInt32(available) | (availableWrap ? 0x8000 : 0)
    return low | (UInt32(used) | (usedWrap ? 0x8000 : 0)) << 16
  }
}

/// Why a ring cannot be as the front-end, or the driver behind it, says.
public enum RingProblem: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Part: String, Hashable, Sendable {
    case descriptors = "descriptor area"
    case driver = "driver area"
    case device = "device area"
  }
  case badSize(UInt32)
  /// Larger than the back-end was told to take.
  case aboveLimit(Int, limit: Int)
  case unknownFlags(UInt32)
  case outsideMemory(Part, FrontendAddress, byteCount: Int)
  case misaligned(Part, GuestAddress, alignment: Int)
  case overlap(Part, Part)
  case badBase(UInt32, size: Int)
  case featuresMissing(UInt64)
  /// The log has no room for its used ring.
  case outsideLog(GuestAddress, byteCount: Int)
  case device(RingRefusal)

  public var description: String {
    switch self {
    case .badSize(let size): "\(size) entries; must be 1 to 32768, and a power of two if the ring is split"
    case .aboveLimit(let size, let limit): "\(size) entries; at most \(limit) by this VM's ring-size-limit"
    case .unknownFlags(let flags): "unknown flags 0x\(String(flags, radix: 16)) with its addresses"
    case .outsideMemory(let part, let address, let count):
      "\(part.rawValue) of \(count) bytes, for the front-end at \(address), is not in one region of guest memory"
    case .misaligned(let part, let address, let alignment):
      "\(part.rawValue) at \(address) is not aligned to \(alignment) bytes"
    case .overlap(let a, let b): "\(a.rawValue) and \(b.rawValue) share bytes"
    case .badBase(let word, let size): "base 0x\(String(word, radix: 16)) is none of a ring of \(size) entries"
    case .featuresMissing(let bits): "the driver did not acknowledge \(Features(rawValue: bits).text), without which it is not served"
    case .outsideLog(let address, let count): "its used ring of \(count) bytes, logged at \(address), is past the log's end"
    case .device(let refusal): "\(refusal)"
    }
  }
}
