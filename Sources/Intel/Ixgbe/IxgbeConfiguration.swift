internal import FlowTables

extension Ixgbe {
  /// What is settled at reset and cannot change afterwards.
  public struct Configuration: Hashable, Sendable {
    /// Bytes after the Ethernet header (and one VLAN tag) that a frame may have.
    public var mtu = 1500
    /// Pools, one a guest: 1 turns virtualization off, and everything the card accepts is that guest's.
    public var poolCount = 1
    /// 1, 2 or 4; without pools 1 to 16. More than one share a guest's frames by RSS.
    public var queuesPerPool = 1
    /// Queues that each pool uses, of the `queuesPerPool` that it has: 1, 2 or 4. Empty: all of them.
    public var usedQueues: [Int] = []
    /// A frame for a queue without a buffer is dropped and counted, instead of stalling all queues.
    public var dropsWhenEmpty = true
    /// 40 bytes for RSS; the default is the key of Microsoft's verification suite.
    public var scalingKey: [UInt8] = ScalingHash.verificationKey
    /// Reports frames whose checksums the card found right.
    public var checksumOffload = true
    /// What flow director's exact filters take of the packet buffer.
    public var flowDirector = FlowDirectorMemory.off

    /// With pools: what one sends to another's address goes there inside the card, and not to the wire; broadcasts go
    /// both ways. Without it the wire gets everything, and frames between guests only come back if a switch there
    /// returns them.
    public var switchesLocally = true

    public init() {}

    /// 7.1.2.7.5: two filters of 2, 4 or 8 Ki are the card's own.
    public enum FlowDirectorMemory: UInt32, Hashable, Sendable, CaseIterable {
      case off, filters2046, filters4094, filters8190
      /// FDIRCTRL.PBALLOC
      var allocation: UInt32 { rawValue }
      public var kibibytes: Int { self == .off ? 0 : 32 << Int(rawValue) }
      public var filterCount: Int { self == .off ? 0 : 1024 << Int(rawValue) - 2 }
      /// The least that holds so many; nil: none does.
      public init?(filters: Int) {
        guard let first = Self.allCases.first(where: { $0.filterCount >= filters }) else { return nil }
        self = first
      }
    }

    public static let mtus = 68...9710
    /// More than one guest: frames go to pools by address and VLAN.
    public var isVirtualized: Bool { poolCount > 1 }
    /// Bytes of the largest frame as it is stored: header, one VLAN tag, payload; the FCS is not stored.
    public var largestFrame: Int { mtu + 14 + 4 }
    /// The card's queues that one pool has, used or not. 7.1.2.2.
    var queueStride: Int { isVirtualized ? (queuesPerPool == 4 ? 4 : 2) : queuesPerPool }
    /// Queues that the card has in this mode.
    var receiveQueueCount: Int { isVirtualized ? 128 : 16 }
    var transmitQueueCount: Int { isVirtualized ? 128 : 64 }

    func check() throws(IntelError) {
      guard Self.mtus.contains(mtu) else { throw .mtu(mtu, allowed: Self.mtus) }
      let pools = 1...(queuesPerPool == 4 ? 32 : 64)
      guard pools.contains(poolCount) else { throw .poolCount(poolCount, allowed: pools) }
      guard isVirtualized ? [1, 2, 4].contains(queuesPerPool) : (1...16).contains(queuesPerPool) else {
        throw .queuesPerPool(queuesPerPool)
      }
      guard usedQueues.isEmpty || usedQueues.count == poolCount else { throw .queuesPerPool(usedQueues.count) }
      for count in usedQueues where ![1, 2, 4].contains(count) || count > queuesPerPool {
        throw .queuesPerPool(count)
      }
      guard scalingKey.count == 40 else { throw .keyByteCount(scalingKey.count) }
    }
  }
}
