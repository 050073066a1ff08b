public import Datapath
public import FlowSteering
internal import Intel
public import VFIO

/// Everything that a back-end is told when it starts: what `sluice run` makes of its flags or of a file.
///
/// One value, checked whole before anything starts: `check` says what is wrong, and with which of its parts.
public struct Configuration: Hashable, Sendable {
  public var nic = NIC()
  /// Where the card's cable leads; nil: nowhere, and only injected traces come from it.
  public var wire: Wire?
  /// Where frames go that rules send to the machine itself, and where its own come from; nil: rules cannot.
  public var host: Wire?
  public var vms: [VM] = []
  /// The socket for `status`, `stats`, `inject` and `/metrics`; nil: none.
  public var control: Socket?
  /// Where rings' places are kept, so that packed rings survive our own death; nil: packed rings are not offered.
  public var stateDirectory: String?
  public var workers = Workers()
  /// Which frames go to whom, besides what addresses and VLANs say.
  public var rules: [Rule] = []

  public init() {}

  public struct NIC: Hashable, Sendable {
    public enum Kind: Hashable, Sendable, CustomStringConvertible {
      /// A register-level model of the Intel 82599, in this process.
      case sim
      /// A card that vfio-pci has.
      case vfio(PCIAddress)

      /// `sim`, or `vfio:` and a PCI address.
      public init?(_ text: String) {
        if text == "sim" {
          self = .sim
        } else if text.hasPrefix("vfio:"), let address = PCIAddress(text.dropFirst(5)) {
          self = .vfio(address)
        } else {
          return nil
        }
      }
      public var description: String {
        switch self {
        case .sim: "sim"
        case .vfio(let address): "vfio:\(address)"
        }
      }
      public static let forms = "sim, sim:no-payload, or vfio: and a PCI address, as in vfio:0000:03:00.0"
    }
    public var kind = Kind.sim
    /// The simulated card writes frames into memory; false: all but their bytes, for measuring only.
    public var writesPayload = true

    /// Sets what `card` says; false, and nothing changes, if that is none of the forms.
    public mutating func choose(_ card: String) -> Bool {
      let leavesPayload = card == "sim:no-payload"
      guard let kind = leavesPayload ? .sim : Kind(card) else { return false }
      (self.kind, writesPayload) = (kind, !leavesPayload)
      return true
    }
    /// As `choose` takes it.
    public var card: String { writesPayload ? "\(kind)" : "\(kind):no-payload" }
    /// How the kernel's VFIO is asked; nil: by iommufd where there is one.
    public var interface: VFIODevice.Interface?
    /// How much of a guest's memory the card can reach.
    public enum Protection: String, CaseIterable, Sendable {
      /// All of it, as long as its front-end is connected.
      case `static`
      /// The pages in which buffers are lent, as long as they are.
      case strict
    }
    public var protection = Protection.static
    /// Bytes after the Ethernet header (and one VLAN tag) that a frame may have.
    public var mtu = 1500
    /// Descriptors of each of the card's rings, a multiple of 8 from 64 to 4096.
    public var ringSize = 1024
    /// How long a real card's vector is quiet after a message, 0 to 1000 µs. A worker that was woken looks longer than this
    /// before it sleeps again (`Workers.spinMicroseconds`), so that it delays nothing; one that does not look is not woken
    /// for each frame. Linux's drivers take 14 µs (igb) and 10 µs (ixgbe) where latency counts most, and 50 µs else.
    public var moderationMicroseconds = 20
    /// How many exact flows (flow director) rules may come to have: memory that is taken from the packet buffer when the
    /// card starts, 2046, 4094 or 8190.
    public var exactFlows = 2046
    public init() {}
  }

  public enum Wire: Hashable, Sendable {
    /// A TAP device of this name, made if it is not there.
    case tap(String)
  }

  /// A socket of ours in the file system.
  public struct Socket: Hashable, Sendable {
    public var path: String
    /// Permission bits; nil: 0600.
    public var mode: UInt16?
    /// Names or numbers; nil: as the process makes it.
    public var owner: String?
    public var group: String?
    public init(path: String) { self.path = path }
  }

  public struct VM: Hashable, Sendable {
    /// 1 to 32 letters, digits, '.', '_', '-'; no two alike.
    public var name: String
    public var endpoint: Endpoint
    /// Whose frames it gets. Without one: with one VM alone everything, with several what rules give it.
    public var address: MACAddress?
    /// From 1 to 4094; only with an address.
    public var vlan: UInt16?
    /// What becomes of frames that it sends under another address than its own, or into another VLAN.
    public enum Spoofing: String, CaseIterable, Sendable {
      /// They are dropped and counted. Without an address any source may be sent, and without a VLAN any tag.
      case deny
      /// They are sent.
      case allow
    }
    public var spoof = Spoofing.deny
    /// How its VLAN's frames look to it. nil if `spoof` decides: `access`, or `tagged` where anything may be sent.
    public var vlanPort: VLANPort?
    /// Pairs of queues: 1, 2 or 4.
    public var queuePairs = 1
    static let queuePairCounts = [1, 2, 4]
    /// Offers VIRTIO_F_RING_PACKED.
    public var offersPacked = true
    /// Offers VHOST_USER_PROTOCOL_F_CONFIG, for front-ends that take address, link state and MTU from the back-end.
    public var offersConfig = false
    public var mode = PathMode.auto
    /// The most entries that a ring of its may have, 1 to 32,768. The default is virtio's own limit, which DPDK's front-ends use:
    /// what a ring may cost others is bounded by what a poll walks, not by its size. A smaller one saves memory here, some 70
    /// bytes an entry, and time when a ring starts and stops.
    public var ringSizeLimit = 32768
    /// The most memory that its front-end may share, in bytes, 1 MiB or more. Shared memory is sparse: what the guest has not touched yet
    /// is charged to this process when the card writes to it.
    public var memoryLimit: UInt64 = 1 << 40

    public init(name: String, endpoint: Endpoint) {
      self.name = name
      self.endpoint = endpoint
    }

    public enum Endpoint: Hashable, Sendable {
      /// We listen, the front-end connects.
      case server(Socket)
      /// The front-end listens, we connect, and again when it has gone.
      case client(path: String)
      /// A connected or listening socket that we were started with.
      case descriptor(Int32)
    }
  }

  public struct Workers: Hashable, Sendable {
    /// Threads that move frames. VMs are dealt out to them in turn.
    public var count = 1
    /// The processors that they are pinned to, in order; empty: none is pinned.
    public var processors: [Int] = []
    /// How long a worker with nothing to do looks before it sleeps, in microseconds.
    public var spinMicroseconds = 50
    public init() {}
  }
}

/// What is wrong with a configuration: which part of it, and why.
public struct ConfigurationError: Error, Hashable, Sendable, CustomStringConvertible {
  /// As the file names it: `vms[1].mac`.
  public let key: String
  public let reason: String
  public init(_ key: String, _ reason: String) {
    self.key = key
    self.reason = reason
  }
  public var description: String { "\(key): \(reason)" }
}

extension Configuration {
  /// Says what is wrong first, or nothing.
  public func check() throws(ConfigurationError) {
    if let problem = problems().first { throw problem }
  }

  /// The VMs as steering knows them.
  public var receivers: [Receiver] {
    vms.map { vm in
      var receiver = Receiver(name: vm.name, queueCount: vm.queuePairs, address: vm.address, vlan: vm.vlan)
      (receiver.checksSource, receiver.port) = (vm.spoof == .deny, vm.effectivePort)
      return receiver
    }
  }

  /// Everything that is wrong, in the order of the parts.
  public func problems() -> [ConfigurationError] {
    var found: [ConfigurationError] = []
    func expect(_ holds: Bool, _ key: String, _ reason: @autoclosure () -> String) {
      if !holds { found.append(ConfigurationError(key, reason())) }
    }
    expect((68...9710).contains(nic.mtu), "nic.mtu", "\(nic.mtu) bytes; 68 to 9710 are possible")
    expect((64...4096).contains(nic.ringSize) && nic.ringSize % 8 == 0, "nic.ring-size", "\(nic.ringSize); a multiple of 8 from 64 to 4096")
    expect((0...1000).contains(nic.moderationMicroseconds), "nic.moderation-us", "\(nic.moderationMicroseconds) microseconds; at most 1000")
    if case .tap(let name) = wire {
      expect(Self.isDeviceName(name), "wire", "the name of a TAP device has 1 to 15 bytes, without '/', spaces or colons")
    }
    if nic.kind != .sim { expect(wire == nil, "wire", "a real card has its own; it is for the simulated one") }
    if case .tap(let name) = host {
      expect(Self.isDeviceName(name), "host", "the name of a TAP device has 1 to 15 bytes, without '/', spaces or colons")
      expect(host != wire, "host", "\(name) is the wire's")
    }
    if let control { expect(Self.isSocketPath(control.path), "control.socket", "a path of 1 to 107 bytes") }
    expect((1...16).contains(workers.count), "workers.count", "\(workers.count); 1 to 16 are possible")
    let processors = workers.processors
    expect(
      processors.isEmpty || processors.count >= workers.count, "workers.cpus",
      "\(processors.count) processor\(processors.count == 1 ? "" : "s") for \(workers.count) workers")
    expect(Set(processors).count == processors.count, "workers.cpus", "a processor is named twice")
    expect(
      (0...1_000_000).contains(workers.spinMicroseconds), "workers.spin-us",
      "\(workers.spinMicroseconds) microseconds; at most a second")
    expect(!vms.isEmpty, "vms", "there must be at least one VM")
    expect([2046, 4094, 8190].contains(nic.exactFlows), "nic.exact-flows", "\(nic.exactFlows); 2046, 4094 or 8190")
    let most = vms.contains { $0.queuePairs == 4 } ? 29 : 32
    expect(nic.kind != .sim || vms.count <= most, "vms", "\(vms.count) VMs; the card has room for \(most)")
    for (index, vm) in vms.enumerated() { found += problems(of: vm, "vms[\(index)]", before: vms[..<index]) }
    if found.isEmpty, let problem = ruleProblem { found.append(ConfigurationError("rules", "\(problem)")) }
    return found
  }

  /// What the card cannot do of what the rules say.
  private var ruleProblem: RuleError? {
    // A real card that is not there is a problem of its own, when it is opened.
    let device = try? VFIONetworkCard.Device(nic)
    guard let profile = nic.kind == .sim ? SimulatedNetworkCard.profile : device?.model.profile else { return nil }
    do throws(RuleError) {
      _ = try CardHost.compile(rules, self, profile)
      return nil
    } catch { return error }
  }

  private func problems(of vm: VM, _ key: String, before others: ArraySlice<VM>) -> [ConfigurationError] {
    var found: [ConfigurationError] = []
    func expect(_ holds: Bool, _ part: String, _ reason: @autoclosure () -> String) {
      if !holds { found.append(ConfigurationError("\(key).\(part)", reason())) }
    }
    expect(Self.isName(vm.name), "name", "a name is 1 to 32 letters, digits, '.', '_' or '-'")
    expect(others.allSatisfy { $0.name != vm.name }, "name", "\(vm.name) is taken")
    if let path = vm.endpoint.path {
      expect(Self.isSocketPath(path), "socket", "a path of 1 to 107 bytes")
      if let other = others.first(where: { $0.endpoint.path == path }) {
        expect(false, "socket", "\(path) is \(other.name)'s")
      }
      expect(control?.path != path, "socket", "\(path) is the control socket's")
    }
    expect((1...32768).contains(vm.ringSizeLimit), "ring-size-limit", "\(vm.ringSizeLimit); 1 to 32768")
    expect(vm.memoryLimit >= 1 << 20, "memory-limit", "\(vm.memoryLimit) bytes; at least 1Mi, and no guest runs in less than some 64Mi")
    expect(VM.queuePairCounts.contains(vm.queuePairs), "queues", "\(vm.queuePairs); 1, 2 or 4")
    if let vlan = vm.vlan {
      expect((1...4094).contains(vlan), "vlan", "\(vlan); 1 to 4094")
      expect(vm.address != nil, "vlan", "needs mac too")
    }
    expect(vm.vlanPort == nil || vm.vlan != nil, "vlan-port", "needs vlan too")
    expect(
      vm.vlanPort != .access || vm.spoof == .deny, "vlan-port", "an access port has one VLAN, and spoof: allow lets the VM send into any: set tagged")
    if let address = vm.address {
      expect(!address.isGroup, "mac", "\(address) is a group's address, no machine's")
      expect(others.allSatisfy { $0.address != address || $0.vlan != vm.vlan }, "mac", "\(address) is taken")
    } else {
      expect(vms.count <= 1 || !rules.isEmpty, "mac", "of several VMs each needs its address, or rules: they decide whose a frame is")
    }
    return found
  }

  /// What a VM may be called: a word for files, labels and options.
  public static func isName(_ text: String) -> Bool { Rule.isName(text) }

  /// sun_path has 108 bytes with its end.
  private static func isSocketPath(_ text: String) -> Bool {
    (1...107).contains(text.utf8.count) && !text.utf8.contains(0)
  }

  /// As the kernel's dev_valid_name: it refuses what a path or a list could not hold.
  private static func isDeviceName(_ text: String) -> Bool {
    (1...15).contains(text.utf8.count) && text != "." && text != ".."
      && text.utf8.allSatisfy { $0 > 0x20 && $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":") && $0 != 0x7F }
  }
}

extension Configuration.VM {
  /// How its VLAN's frames look to it, as `vlanPort` or its default says.
  public var effectivePort: VLANPort { vlanPort ?? (spoof == .deny ? .access : .tagged) }
}

extension Configuration.VM.Endpoint {
  /// Where the socket lies in the file system; nil for one that we were started with.
  public var path: String? {
    switch self {
    case .server(let socket): socket.path
    case .client(let path): path
    case .descriptor: nil
    }
  }
}
