public import FlowSteering
internal import Linux
public import Virtio

/// What a back-end offers on one socket. It stays the same while the socket lives: front-ends compare when they
/// come back.
public struct Offer: Sendable {
  /// virtio's bits.
  public var features: Features
  /// Without these a ring is refused. Drivers from before virtio 1.0 have another header.
  public var requiredFeatures: Features = .version1
  public var protocolFeatures: ProtocolFeatures
  /// A receive ring and a transmit ring each.
  public var queuePairs: Int
  /// How many regions of guest memory there may be.
  public var memorySlots: Int
  /// What CONFIG serves.
  public var config: NetConfig?

  /// - Parameters:
  ///   - queuePairs: 1 to 128: a ring's number has 8 bits in some messages.
  ///   - memorySlots: 8 to 509, as many as other back-ends offer.
  ///   - protocolFeatures: of those that are built. CONFIG comes with `config`, and only with it.
  public init(
    features: Features, protocolFeatures: ProtocolFeatures = .built, queuePairs: Int = 1, memorySlots: Int = 509,
    config: NetConfig? = nil
  ) {
    precondition(protocolFeatures.isSubset(of: .built), "not built: \(protocolFeatures.subtracting(.built))")
    precondition((1...128).contains(queuePairs) && (8...509).contains(memorySlots))
    precondition(features.isDisjoint(with: .ofTheProtocol))
    self.features = features
    self.protocolFeatures = config == nil ? protocolFeatures.subtracting(.config) : protocolFeatures.union(.config)
    self.queuePairs = queuePairs
    self.memorySlots = memorySlots
    self.config = config
  }

  /// What GET_FEATURES answers.
  var allFeatures: Features { features.union(.ofTheProtocol) }
  /// What GET_QUEUE_NUM answers: see `Readings.md`.
  var ringCount: Int { 2 * queuePairs }
}

/// How much a front-end may ask of us.
public struct Limits: Sendable {
  /// Of guest memory, in bytes. What a guest has not touched is not there yet, and is charged to who touches it first.
  public var mostGuestBytes: UInt64 = Self.usualGuestBytes
  /// Entries of a ring.
  public var largestRing = RingLayout.largestSize
  public static let usualGuestBytes: UInt64 = 1 << 40
  /// Files of guest memory that are kept open, so that a card can be told of it by them. They count against what the process
  /// may have open.
  public var mostKeptFiles = 0
  /// How long until the first message is there, in nanoseconds.
  public var firstMessage: UInt64 = 10_000_000_000
  /// From a message's first byte to its last, in nanoseconds.
  public var message: UInt64 = 1_000_000_000
  /// How long a reply may wait for the front-end to make room for it, in nanoseconds.
  public var reply: UInt64 = 10_000_000_000
  /// How long nothing may be read because descriptors of the VM are not closed, in nanoseconds: see `Backend.isHeldUp`.
  public var closing: UInt64 = 10_000_000_000
  /// GET_INFLIGHT_FD: files for one connection. A front-end needs one, and another when it makes more rings.
  public var inflightPerConnection = 4
  /// Files for a VM at once, and the time in nanoseconds after which it may have another.
  public var inflightAtOnce = 64
  public var inflightRefill: UInt64 = 10_000_000_000
  /// Messages in one call of `readable`: then others have their turn.
  public var messagesPerTurn = 64
  /// The time after which a call of `readable` takes no further message, in nanoseconds.
  public var readableTime: UInt64 = 1_000_000
  /// SEND_RARP: how many are passed on in a second. QEMU sends five after a migration.
  public var announcementsPerSecond = 20
  public init() {}

  /// Descriptors of one VM that may be open at a time: what a well-behaved front-end can have here, what one message more
  /// can bring, and as many that wait to be closed.
  public func mostDescriptors(ringCount: Int) -> Int {
    // Kept files, while one table takes the place of another; kick, call and error of each ring; log, in flight, requests, the connection, the listener, and connections that are
    // turned away.
    2 * mostKeptFiles + 3 * ringCount + 16 + 2 * UnixStream.mostDescriptors
  }
}

/// The configuration space of a network device. virtio 1.3, 5.1.4.
public struct NetConfig: Hashable, Sendable {
  public var address: MACAddress
  public var isLinkUp: Bool
  public var maxQueuePairs: Int
  /// Bytes: 68 to 65535.
  public var mtu: Int

  public init(address: MACAddress, isLinkUp: Bool = true, maxQueuePairs: Int, mtu: Int = 1500) {
    precondition((1...0x8000).contains(maxQueuePairs) && (68...65535).contains(mtu))
    self.address = address
    self.isLinkUp = isLinkUp
    self.maxQueuePairs = maxQueuePairs
    self.mtu = mtu
  }

  /// As the guest reads it, little-endian, with zeros for what is not offered: speed, duplex, RSS.
  var bytes: [UInt8] {
    var result = (0..<6).map { address.octet($0) }
    for value in [isLinkUp ? 1 : 0, maxQueuePairs, mtu] {
      result += [UInt8(truncatingIfNeeded: value), UInt8(truncatingIfNeeded: value >> 8)]
    }
    return result + [UInt8](repeating: 0, count: Int(ConfigAccess.largest) - result.count)
  }
}
