public import FlowSteering

/// What each VM may send, and what sees to it: the card where its tables say exactly that, else the processor.
///
/// A card compares a source with the addresses by which the pool receives, and a VLAN with those whose filter names the
/// pool. Rules can make these more than the VM's own, or fewer: a copy of another VM's frames puts that VM's address among
/// them. Then the card's answer is not the right one, and the processor compares what the card cannot.
public struct SendingPlan: Hashable, Sendable {
  /// What the processor compares of one VM's frames; nil: nothing of that kind.
  public struct Remainder: Hashable, Sendable {
    public var address: MACAddress?
    public var vlan: UInt16?
    /// The card puts this VLAN's tag into every frame.
    public var portVLAN: UInt16?
    public init() {}
    public var isEmpty: Bool { address == nil && vlan == nil }
  }
  /// For the card.
  public private(set) var card = CardTables.Sending()
  /// For the processor, by VM.
  public private(set) var processor: [Remainder] = []

  /// - Throws: for an access port that the card cannot make.
  init(_ steering: Steering, _ tables: CardTables, _ profile: CardProfile) throws(RuleError) {
    for (pool, vm) in steering.receivers.enumerated() {
      let bit: UInt64 = 1 << UInt64(pool)
      var left = Remainder()
      (left.address, left.vlan) = (vm.sourceAddress, vm.sourceVLAN)
      if let address = vm.sourceAddress, tables.sources(of: pool) == [address] {
        card.addressPools |= bit
        if profile.checksSources { left.address = nil }
      }
      // A VLAN is checked with the address or not at all: 82599 datasheet 8.2.3.27.11.
      if let vlan = vm.sourceVLAN, card.addressPools & bit != 0, tables.filtersVLANs, tables.senderVLANs(of: pool) == [vlan] {
        card.vlanPools |= bit
        if profile.checksSources { left.vlan = nil }
      }
      if let vlan = vm.accessVLAN {
        guard profile.hasAccessPorts else {
          throw RuleError(
            .actionUnsupported, "VM \(vm.name): the \(profile.name) cannot put in and take off the tag of VLAN \(vlan)", fit: "set vlan-port: tagged")
        }
        card.portVLANs[pool] = vlan
        // Whatever it has compared, tags of a guest's own would come behind the port's.
        (left.vlan, left.portVLAN) = (vlan, vlan)
      }
      processor.append(left)
    }
    let others = steering.receivers.indices.filter { card.portVLANs[$0] == nil }
    if profile.stripsCopiesForAll, !card.portVLANs.isEmpty, let other = others.first {
      throw RuleError(
        .actionUnsupported,
        "VM \(steering.receivers[other].name): the \(profile.name) takes the tag off broadcast and multicast frames for all VMs or for none, and other VMs have access ports",
        fit: "give each VM a vlan, or set vlan-port: tagged for all")
    }
  }
}

extension CardProgram {
  /// What one VM may send, and what sees to it, for people.
  public struct Sender: Hashable, Sendable {
    public var vm: String
    /// Nil: any.
    public var address: MACAddress?
    public var vlan: UInt16?
    /// `card`, `processor`; nil: nothing does.
    public var addressChecker: String?
    public var vlanChecker: String?
  }
  public var senders: [Sender] {
    steering.receivers.enumerated().map { number, vm in
      let left = sending?.processor[number]
      func checker(_ isChecked: Bool, _ isLeft: Bool?) -> String? { isChecked ? isLeft == false ? "card" : "processor" : nil }
      return Sender(
        vm: vm.name, address: vm.sourceAddress, vlan: vm.sourceVLAN, addressChecker: checker(vm.sourceAddress != nil, left.map { $0.address != nil }),
        // An access port is the card's: all that leaves it has the port's tag.
        vlanChecker: checker(vm.sourceVLAN != nil, left.map { $0.vlan != nil && $0.portVLAN == nil }))
    }
  }
}

extension CardTables {
  /// The receive addresses of a pool.
  public func sources(of pool: Int) -> Set<MACAddress> { Set(addresses.filter { $0.pools >> UInt64(pool) & 1 == 1 }.map(\.address)) }
  /// The VLANs whose filters name a pool.
  public func senderVLANs(of pool: Int) -> Set<UInt16> { Set(vlans.filter { $0.pools >> UInt64(pool) & 1 == 1 }.map(\.identifier)) }
}

extension Exclusivity {
  /// Before a queue of a pool may send: the card's checks of what leaves the pool are as configured, and the tables that it
  /// checks by have nothing else in them.
  ///
  /// - Throws: `notExclusive`, naming what is missing.
  public func checkSending(pool: Int, in state: CardState) throws(RuleError) {
    let (bit, found) = (UInt64(1) << UInt64(pool), state.tables)
    func fail(_ way: String) throws(RuleError) {
      throw RuleError(
        .notExclusive, "VM \(name(of: pool)) could send what is not its own: \(way)",
        fit: "the card has been changed by another than us, or forgot a change; start the back-end again")
    }
    let wanted = self.wanted.sending
    if wanted.addressPools & bit != found.sending.addressPools & bit {
      try fail("the check of its source addresses is not \(wanted.addressPools & bit == 0 ? "off" : "on") (PFVFSPOOF.MACAS, DTXSWC.MACAS)")
    }
    if wanted.vlanPools & bit != found.sending.vlanPools & bit {
      try fail("the check of its VLAN is not \(wanted.vlanPools & bit == 0 ? "off" : "on") (PFVFSPOOF.VLANAS, DTXSWC.VLANAS)")
    }
    if wanted.portVLANs[pool] != found.sending.portVLANs[pool] {
      let text = wanted.portVLANs[pool].map { "VLAN \($0)" } ?? "none"
      try fail("its port puts in the tag of \(found.sending.portVLANs[pool].map { "VLAN \($0)" } ?? "none") and not of \(text) (PFVMVIR, VMVIR)")
    }
    if wanted.addressPools & bit != 0, found.sources(of: pool) != self.wanted.sources(of: pool) {
      try fail("its receive addresses, by which sources are checked, are not those that were set (RAH, MPSAR)")
    }
    if wanted.vlanPools & bit != 0, found.senderVLANs(of: pool) != self.wanted.senderVLANs(of: pool) {
      try fail("its VLAN filters, by which tags are checked, are not those that were set (PFVLVF, VLVF)")
    }
  }
}
