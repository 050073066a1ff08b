public import Datapath
public import FlowSteering

/// Everything that a back-end is told when it starts: what `sluice run` makes of its flags or of a file.
///
/// One value, checked whole before anything starts: `check` says what is wrong, and with which of its parts.
public struct Configuration: Hashable, Sendable {
  public var nic = NIC()
  /// Where the card's cable leads; nil: nowhere, and only injected traces come from it.
  public var wire: Wire?
  public var vms: [VM] = []
  /// The socket for `status`, `stats`, `inject` and `/metrics`; nil: none.
  public var control: Socket?
  /// Where rings' places are kept, so that packed rings survive our own death; nil: packed rings are not offered.
  public var stateDirectory: String?
  public var workers = Workers()

  public init() {}

  public struct NIC: Hashable, Sendable {
    public enum Kind: String, CaseIterable, Sendable {
      /// A register-level model of the Intel 82599, in this process.
      case sim
    }
    public var kind = Kind.sim
    /// Bytes after the Ethernet header (and one VLAN tag) that a frame may have.
    public var mtu = 1500
    /// Descriptors of each of the card's rings, a multiple of 8 from 64 to 4096.
    public var ringSize = 1024
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
    /// Whose frames it gets. With one VM alone nil means everything; with several each has one, no two alike.
    public var address: MACAddress?
    /// From 1 to 4094; only with an address.
    public var vlan: UInt16?
    /// Pairs of queues: 1, 2 or 4.
    public var queuePairs = 1
    /// Offers VIRTIO_F_RING_PACKED.
    public var offersPacked = true
    /// Offers VHOST_USER_PROTOCOL_F_CONFIG: Cloud Hypervisor and crosvm take address and MTU from it.
    public var offersConfig = false
    public var mode = PathMode.auto

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
  /// Says what is wrong, or nothing.
  public func check() throws(ConfigurationError) {
    guard !vms.isEmpty else { throw ConfigurationError("vms", "there must be at least one VM") }
    guard vms.count <= 32 else { throw ConfigurationError("vms", "\(vms.count) VMs; the card has room for 32") }
    guard (68...9710).contains(nic.mtu) else { throw ConfigurationError("nic.mtu", "\(nic.mtu) bytes; 68 to 9710 are possible") }
    guard (64...4096).contains(nic.ringSize), nic.ringSize % 8 == 0 else {
      throw ConfigurationError("nic.ring-size", "\(nic.ringSize); a multiple of 8 from 64 to 4096")
    }
    for (index, vm) in vms.enumerated() { try check(vm, "vms[\(index)]", before: vms[..<index]) }
    guard (1...16).contains(workers.count) else { throw ConfigurationError("workers.count", "\(workers.count); 1 to 16 are possible") }
    guard (0...1_000_000).contains(workers.spinMicroseconds) else {
      throw ConfigurationError("workers.spin-us", "\(workers.spinMicroseconds); at most a second")
    }
    guard workers.processors.isEmpty || workers.processors.count >= workers.count else {
      throw ConfigurationError("workers.cpus", "\(workers.processors.count) processors for \(workers.count) workers")
    }
    if case .tap(let name) = wire, name.isEmpty || name.utf8.count > 15 {
      throw ConfigurationError("wire", "the name of a TAP device has 1 to 15 bytes")
    }
  }

  private func check(_ vm: VM, _ key: String, before others: ArraySlice<VM>) throws(ConfigurationError) {
    guard others.allSatisfy({ $0.name != vm.name }) else { throw ConfigurationError("\(key).name", "\(vm.name) is taken") }
    guard [1, 2, 4].contains(vm.queuePairs) else { throw ConfigurationError("\(key).queues", "\(vm.queuePairs); 1, 2 or 4") }
    if vms.count > 1 {
      guard let address = vm.address else {
        throw ConfigurationError("\(key).mac", "of several VMs each needs its address: it decides whose a frame is")
      }
      guard others.allSatisfy({ $0.address != address || $0.vlan != vm.vlan }) else {
        throw ConfigurationError("\(key).mac", "\(address) is taken")
      }
    }
    if let address = vm.address, address.isGroup {
      throw ConfigurationError("\(key).mac", "\(address) is a group's address, no machine's")
    }
    if let vlan = vm.vlan {
      guard (1...4094).contains(vlan) else { throw ConfigurationError("\(key).vlan", "\(vlan); 1 to 4094") }
      guard vm.address != nil else { throw ConfigurationError("\(key).vlan", "needs mac too") }
    }
    let path: String? =
      switch vm.endpoint {
      case .server(let socket): socket.path
      case .client(let path): path
      case .descriptor: nil
      }
    if let path {
      // sun_path has 108 bytes with its end.
      guard !path.isEmpty, path.utf8.count < 108 else { throw ConfigurationError("\(key).socket", "a path of 1 to 107 bytes") }
      for other in others {
        if case .server(let socket) = other.endpoint, socket.path == path {
          throw ConfigurationError("\(key).socket", "\(path) is \(other.name)'s")
        }
      }
    }
  }
}
