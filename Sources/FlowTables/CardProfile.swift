/// A kind of card, by what its tables hold.
///
/// Numbers from the datasheets: 82599 7.1.1 to 7.1.2.7, 82576 7.1.1, I350 7.1.1.
///
/// A card is always used with its pools, so what its filters do without them does not count. The 82576 and the I350 have
/// EtherType, SYN and tuple filters that name a queue, but with pools MRQC's mode says what chooses one: on the 82576
/// (8.10.21, as illumos's igb has it) the address, and RSS where a pool has two queues; on the I350 (4.6.11.1.1, mode 011b,
/// as snabb has it) the address and EtherType filters. Neither names SYN and tuple filters there, ETQF and SYNQF have no
/// room for the number of a pool's second queue, and QEMU's 82576, the only one that this has met, looks at none of them:
/// none is counted on until silicon says otherwise.
public struct CardProfile: Hashable, Sendable {
  public var name: String
  /// Exact addresses.
  public var receiveAddresses: Int
  public var vlanFilters: Int
  /// Groups of queues that are kept apart, by queues in each.
  public var pools: [Pools]
  public var etherTypeFilters: Int
  /// Whether an EtherType filter says whose the frame is; else it only names a queue.
  public var etherTypeChoosesPool: Bool
  public var hasSYNFilter: Bool
  public var fiveTupleFilters: Int
  public var fiveTuplePriorities: Int
  /// Exact flows by the memory that they take from the packet buffer; empty: none.
  public var exactFlows: [ExactFlows]
  /// Whether the card's own checks of what pools send are relied on. Else the processor compares every frame, too: a virtual
  /// function's are its physical function's to switch on, and QEMU's 82576, the only one that this has met, has the registers
  /// and does not act by them.
  public var checksSources = false
  /// Whether pools can be access ports of a VLAN.
  public var hasAccessPorts = false
  /// A tag is taken off what is copied to several pools for all of them or for none (82576: RPLOLR).
  public var stripsCopiesForAll = false
  /// Everything can be had: for rules that are not for a card.
  public var isIdeal = false

  public struct Pools: Hashable, Sendable {
    public var count: Int
    public var queuesEach: Int
  }
  public struct ExactFlows: Hashable, Sendable {
    public var filters: Int
    public var kibibytes: Int
  }

  public static let intel82599 = CardProfile(
    name: "82599", receiveAddresses: 128, vlanFilters: 64,
    pools: [Pools(count: 64, queuesEach: 2), Pools(count: 32, queuesEach: 4)], etherTypeFilters: 8, etherTypeChoosesPool: true,
    hasSYNFilter: true, fiveTupleFilters: 128, fiveTuplePriorities: 7,
    exactFlows: [
      ExactFlows(filters: 2046, kibibytes: 64), ExactFlows(filters: 4094, kibibytes: 128), ExactFlows(filters: 8190, kibibytes: 256),
    ], checksSources: true, hasAccessPorts: true)
  public static let intel82576 = CardProfile(
    name: "82576", receiveAddresses: 24, vlanFilters: 32, pools: [Pools(count: 8, queuesEach: 2)], etherTypeFilters: 0,
    etherTypeChoosesPool: false, hasSYNFilter: false, fiveTupleFilters: 0, fiveTuplePriorities: 0, exactFlows: [], hasAccessPorts: true,
    stripsCopiesForAll: true)
  public static let intelI350 = CardProfile(
    name: "i350", receiveAddresses: 32, vlanFilters: 32, pools: [Pools(count: 8, queuesEach: 1)], etherTypeFilters: 8,
    etherTypeChoosesPool: false, hasSYNFilter: false, fiveTupleFilters: 0, fiveTuplePriorities: 0, exactFlows: [], hasAccessPorts: true)
  /// One virtual function: what comes to it is said elsewhere, but for its address.
  public static let intel82576VF = CardProfile(
    name: "82576 VF", receiveAddresses: 1, vlanFilters: 0, pools: [Pools(count: 4, queuesEach: 1)], etherTypeFilters: 0, etherTypeChoosesPool: false,
    hasSYNFilter: false, fiveTupleFilters: 0, fiveTuplePriorities: 0, exactFlows: [])
  public static let ideal = CardProfile(
    name: "ideal", receiveAddresses: .max, vlanFilters: 4096, pools: [Pools(count: 64, queuesEach: 128)], etherTypeFilters: .max,
    etherTypeChoosesPool: true, hasSYNFilter: true, fiveTupleFilters: .max, fiveTuplePriorities: .max, exactFlows: [], hasAccessPorts: true, isIdeal: true)

  /// Whether a flow rule can be made into anything.
  var hasFlowFilters: Bool { hasSYNFilter || fiveTupleFilters > 0 || !exactFlows.isEmpty }

  public static let all = [intel82599, intel82576, intelI350, ideal]
  public static func named(_ name: String) -> CardProfile? { all.first { $0.name == name } }
}

/// Which pools stand for whom.
public struct PoolPlan: Hashable, Sendable {
  /// Pools in use or kept: VMs have the first ones.
  public let count: Int
  public let queuesEach: Int
  public let vmCount: Int
  /// The last three are nobody's: one for the host, one whose queues never run, where frames wait for a flow rule or
  /// end, and one that is not enabled at all, where they end at once.
  public var host: Int { count - 3 }
  public var nowhere: Int { count - 2 }
  /// Where what rules drop ends: beside what is nobody's, so that the two can be told apart.
  public var dropQueue: CardTables.Queue { CardTables.Queue(pool: nowhere, number: 1) }
  public var closed: Int { count - 1 }

  /// The layout with the fewest queues a pool that has enough.
  public init?(_ profile: CardProfile, vmCount: Int, queuesEach: Int) {
    guard let pools = profile.pools.first(where: { $0.queuesEach >= queuesEach }), vmCount + 3 <= pools.count else { return nil }
    count = pools.count
    self.queuesEach = pools.queuesEach
    self.vmCount = vmCount
  }
}
