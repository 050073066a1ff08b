public import FlowTables

extension Igb {
  /// What differs between the cards of this family, as data: nothing else in the driver asks which card it has.
  ///
  /// Figures are those of the datasheets, 82576 chapter 8 and I350 chapter 8, as Linux's and DPDK's drivers have them too.
  public struct Variant: Hashable, Sendable {
    public let profile: CardProfile
    /// What is taken off a frame is said where its queue is, in DVMOLR, and not in VMOLR and RPLOLR.
    let stripsAtQueue: Bool
    /// Which of them it has: 0, DTXSWC, or 1, TXSWC.
    let switchControl: Int
    /// The two queues of one IVAR are neighbours, 2 n and 2 n + 1, and not n and n + 8.
    let neighboursShareVectors: Bool
    /// How often a word of VFTA is written: the I350 may miss one. Linux and DPDK write ten times.
    let vlanTableWrites: Int
    /// It has PHPM, which can keep the PHY away from the wire.
    let hasPowerManagement: Bool

    public static let intel82576 = Variant(
      profile: .intel82576, stripsAtQueue: false, switchControl: 0, neighboursShareVectors: false, vlanTableWrites: 1, hasPowerManagement: false)
    public static let intelI350 = Variant(
      profile: .intelI350, stripsAtQueue: true, switchControl: 1, neighboursShareVectors: true, vlanTableWrites: 10, hasPowerManagement: true)

    var poolCount: Int { profile.pools[0].count }
    var queuesPerPool: Int { profile.pools[0].queuesEach }
    var queueCount: Int { poolCount * queuesPerPool }
    var addressCount: Int { profile.receiveAddresses }
    var vlanCount: Int { profile.vlanFilters }
    var vectorRegisterCount: Int { queueCount / 2 }

    /// Which IVAR says where a queue's messages go, and in which half of it.
    func vectorPlace(ofQueue n: Int) -> (register: Int, half: Int) {
      neighboursShareVectors ? (n / 2, n % 2) : (n % poolCount, n / poolCount)
    }
  }
}

extension Igb.Variant {
  /// Precondition: a card of this family.
  public init(_ model: IntelModel) {
    switch model {
    case .intel82576: self = .intel82576
    case .intelI350: self = .intelI350
    case .intel82599, .intel82576VF: preconditionFailure("\(model.rawValue) is not of this family")
    }
  }
}
