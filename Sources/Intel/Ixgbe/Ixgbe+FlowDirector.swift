internal import Bus
internal import FlowTables

// Flow director, exact matches: filters by the thousand, kept in the packet buffer, found by a hash that software
// has to compute as the card does. 82599 datasheet 7.1.2.7.
extension Ixgbe {
  /// The buckets that 64 KiB have, as the card counts a hash.
  static let bucketMask: UInt32 = 0x1FFF

  /// What is compared until rules say otherwise: addresses, ports and protocol whole, and the pool if there are pools.
  private var initialMask: CardTables.FlowMask {
    var mask = CardTables.FlowMask()
    (mask.source4, mask.destination4) = (.max, .max)
    (mask.tcp, mask.udp) = (.init(source: .max, destination: .max), .init(source: .max, destination: .max))
    mask.comparesTransport = true
    mask.comparesPool = configuration.isVirtualized
    return mask
  }

  /// 4.6.7 "Flow Director": the memory must have been taken from the packet buffer.
  func initializeFlowDirector(comparing mask: CardTables.FlowMask? = nil) throws(IntelError) {
    registers.write(FDIRHKEY.bucket)
    registers.write(FDIRSKEY.signature)
    let mask = mask ?? initialMask
    writeFlowMask(mask)
    var control = FDIRCTRL(rawValue: 0)
    control.allocation = configuration.flowDirector.allocation
    control.matchesExactly = true
    control.reportsFilter = true
    control.dropQueue = 127
    control.flexOffset = UInt32((mask.flexibleOffset ?? 12) / 2)
    control.longestList = 10
    control.fullThreshold = 4
    registers.write(control)
    // 60 µs at 10 Gbit/s, 6 ms at 100 Mbit/s, four times that under load.
    try wait(for: FDIRCTRL.self, within: .milliseconds(30)) { $0.isInitialized }
  }

  /// Bits that are set in these registers are left out.
  private func writeFlowMask(_ mask: CardTables.FlowMask) {
    registers.write(FDIRDIP4M(rawValue: (~mask.destination4).byteSwapped))
    registers.write(FDIRSIP4M(rawValue: (~mask.source4).byteSwapped))
    // Each port with its bits in reverse order.
    func ports(_ ports: CardTables.FlowMask.Ports) -> UInt32 {
      UInt32(Self.reversed(~ports.destination)) << 16 | UInt32(Self.reversed(~ports.source))
    }
    registers.write(FDIRTCPM(rawValue: ports(mask.tcp)))
    registers.write(FDIRUDPM(rawValue: ports(mask.udp)))
    registers.write(FDIRIP6M(rawValue: 0xFFFF_0000 | UInt32(~mask.source6)))
    var other = FDIRM(rawValue: 0)
    other.ignoresVLAN = !mask.comparesVLAN
    other.ignoresPriority = !mask.comparesPriority
    other.ignoresPool = !mask.comparesPool
    other.ignoresTransport = !mask.comparesTransport
    other.ignoresFlex = mask.flexibleOffset == nil
    other.ignoresIPv6Destination = true
    registers.write(other)
  }
  private static func reversed(_ value: UInt16) -> UInt16 {
    (0..<16).reduce(UInt16(0)) { $0 | (value >> UInt16($1) & 1) << UInt16(15 - $1) }
  }

  /// Sends a flow's frames to one of a pool's queues.
  ///
  /// - Parameter number: names the filter in descriptors, 0 to 32767; whoever adds filters keeps them apart.
  public func addExactFlow(_ flow: IxgbeFlow, number: Int, pool: Int, queue: Int) throws(IntelError) {
    try check(pool: pool)
    try check(queue: queue, of: pool)
    try add(try input(of: flow, number: number, pool: pool), number: number, queue: queueIndex(pool: pool, queue: queue))
  }

  /// - Parameter queue: the card's number of it; nil drops.
  func add(_ input: ExactInput, number: Int, queue: Int?) throws(IntelError) {
    write(input, number: number)
    var command = FDIRCMD(rawValue: 0)
    command.command = 1
    command.updates = true
    command.isLast = true
    command.choosesQueue = queue != nil
    command.drops = queue == nil
    command.transport = input.transport
    command.isIPv6 = input.isIPv6
    command.queue = UInt32(queue ?? 127)
    command.pool = input.pool
    try run(command)
  }

  /// Takes a filter away; nothing happens if it is not there.
  public func removeExactFlow(_ flow: IxgbeFlow, number: Int, pool: Int) throws(IntelError) {
    try check(pool: pool)
    try remove(try input(of: flow, number: number, pool: pool), number: number)
  }

  func remove(_ input: ExactInput, number: Int) throws(IntelError) {
    write(input, number: number)
    var command = FDIRCMD(rawValue: 0)
    command.transport = input.transport
    command.isIPv6 = input.isIPv6
    command.pool = input.pool
    command.command = 3
    try run(command)
    guard registers.read(FDIRCMD.self).isPresent else { return }
    write(input, number: number)
    command.command = 2
    try run(command)
  }

  private func write(_ input: ExactInput, number: Int) {
    for n in 0..<3 { registers.write(FDIRSIPv6(rawValue: UInt32(truncatingIfNeeded: input.source >> UInt128(96 - 32 * n)).byteSwapped), n) }
    registers.write(FDIRIPSA(rawValue: UInt32(truncatingIfNeeded: input.source).byteSwapped))
    registers.write(FDIRIPDA(rawValue: input.destination.byteSwapped))
    var port = FDIRPORT(rawValue: 0)
    port.source = UInt32(input.sourcePort)
    port.destination = UInt32(input.destinationPort)
    registers.write(port)
    var vlan = FDIRVLAN(rawValue: 0)
    vlan.tag = UInt32(input.tag)
    vlan.flexible = UInt32(input.flexible.byteSwapped)
    registers.write(vlan)
    var hash = FDIRHASH(rawValue: 0)
    hash.bucket = input.hash(key: FDIRHKEY.bucket.rawValue) & Self.bucketMask
    hash.index = UInt32(number)
    registers.write(hash)
  }

  /// Gives a command and waits until the card has done it.
  private func run(_ command: FDIRCMD) throws(IntelError) {
    registers.write(command)
    try wait(for: FDIRCMD.self, within: .milliseconds(1)) { $0.command == 0 }
  }

  private func input(of flow: IxgbeFlow, number: Int, pool: Int) throws(IntelError) -> ExactInput {
    guard configuration.flowDirector != .off else { throw .unavailable("flow director, which has no memory") }
    try Self.check(number, of: "exact flows", count: 32_768)
    guard let source = flow.source, let destination = flow.destination, let transport = flow.transport,
      transport == .other || (flow.sourcePort != nil && flow.destinationPort != nil)
    else { throw .unavailable("an exact flow that leaves a field open") }
    return ExactInput(
      source: UInt128(source), destination: destination,
      sourcePort: transport == .other ? 0 : flow.sourcePort ?? 0,
      destinationPort: transport == .other ? 0 : flow.destinationPort ?? 0,
      transport: transport == .udp ? 1 : transport == .tcp ? 2 : 0,
      pool: configuration.isVirtualized ? UInt32(pool) : 0)
  }
}

/// What flow director hashes, with the fields that are left out as zero.
struct ExactInput: Hashable {
  /// IPv6's, or IPv4's in the low bits.
  var source: UInt128
  var destination: UInt32
  var sourcePort, destinationPort: UInt16
  /// As in FDIRCMD.L4TYPE.
  var transport: UInt32
  var pool: UInt32
  var isIPv6 = false
  var tag: UInt16 = 0
  var flexible: UInt16 = 0

  /// Bit i of the key, 0 to 15, brings in the low word shifted by i, and bit 16 + i the high word. 7.1.2.7.4.
  func hash(key: UInt32) -> UInt32 {
    let address = (0..<4).reduce(UInt32(0)) { $0 ^ UInt32(truncatingIfNeeded: source >> UInt128(32 * $1)) }
    let tuple = address ^ destination ^ (UInt32(sourcePort) << 16 | UInt32(destinationPort)) ^ UInt32(flexible) << 16
    // Pool, transport, VLAN.
    let head = pool << 24 | (transport | (isIPv6 ? 4 : 0)) << 16 | UInt32(tag)
    let swapped = tuple << 16 | tuple >> 16
    let high = tuple ^ head ^ head >> 16
    let low = swapped ^ head ^ head << 16
    var hash: UInt32 = 0
    for bit: UInt32 in 0..<16 {
      // The first bit of the stream is not hashed: bit 0 sees the low word without the head.
      if key >> bit & 1 == 1 { hash ^= (bit == 0 ? swapped : low) >> bit }
      if key >> (16 + bit) & 1 == 1 { hash ^= high >> bit }
    }
    return hash
  }
}
