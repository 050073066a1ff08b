internal import Bus

// Flow director, exact matches: filters by the thousand, kept in the packet buffer, found by a hash that software
// has to compute as the card does. 82599 datasheet 7.1.2.7.
extension Ixgbe {
  /// The buckets that 64 KiB have, as the card counts a hash.
  static let bucketMask: UInt32 = 0x1FFF

  func initializeFlowDirector() throws(IxgbeError) {
    registers.write(FDIRHKEY.bucket)
    registers.write(FDIRSKEY.signature)
    // Addresses and ports are compared whole; VLAN and flexible bytes not at all; the pool if there are pools.
    registers.write(FDIRDIP4M(rawValue: 0))
    registers.write(FDIRSIP4M(rawValue: 0))
    registers.write(FDIRTCPM(rawValue: 0))
    registers.write(FDIRUDPM(rawValue: 0))
    registers.write(FDIRIP6M(rawValue: .max))
    var mask = FDIRM(rawValue: 0)
    mask.ignoresVLAN = true
    mask.ignoresPool = !configuration.isVirtualized
    mask.ignoresFlex = true
    mask.ignoresIPv6Destination = true
    registers.write(mask)
    var control = FDIRCTRL(rawValue: 0)
    control.allocation = 1
    control.matchesExactly = true
    control.reportsFilter = true
    control.dropQueue = 127
    control.flexOffset = 6
    control.longestList = 10
    control.fullThreshold = 4
    registers.write(control)
    // 60 µs at 10 Gbit/s, 6 ms at 100 Mbit/s, four times that under load.
    try wait(for: FDIRCTRL.self, within: .milliseconds(30)) { $0.isInitialized }
  }

  /// Sends a flow's frames to one of a pool's queues.
  ///
  /// - Parameter number: names the filter in descriptors, 0 to 32767; whoever adds filters keeps them apart.
  public func addExactFlow(_ flow: IxgbeFlow, number: Int, pool: Int, queue: Int) throws(IxgbeError) {
    try check(pool: pool)
    try check(queue: queue, of: pool)
    let input = try input(of: flow, number: number, pool: pool)
    try write(input, number: number)
    var command = FDIRCMD(rawValue: 0)
    command.command = 1
    command.updates = true
    command.isLast = true
    command.choosesQueue = true
    command.transport = input.transport
    command.queue = UInt32(queueIndex(pool: pool, queue: queue))
    command.pool = configuration.isVirtualized ? UInt32(pool) : 0
    try run(command)
  }

  /// Takes a filter away; nothing happens if it is not there.
  public func removeExactFlow(_ flow: IxgbeFlow, number: Int, pool: Int) throws(IxgbeError) {
    try check(pool: pool)
    let input = try input(of: flow, number: number, pool: pool)
    try write(input, number: number)
    var command = FDIRCMD(rawValue: 0)
    command.transport = input.transport
    command.pool = configuration.isVirtualized ? UInt32(pool) : 0
    command.command = 3
    try run(command)
    guard registers.read(FDIRCMD.self).isPresent else { return }
    try write(input, number: number)
    command.command = 2
    try run(command)
  }

  private func write(_ input: ExactInput, number: Int) throws(IxgbeError) {
    registers.write(FDIRIPSA(rawValue: input.source.byteSwapped))
    registers.write(FDIRIPDA(rawValue: input.destination.byteSwapped))
    var port = FDIRPORT(rawValue: 0)
    port.source = UInt32(input.sourcePort)
    port.destination = UInt32(input.destinationPort)
    registers.write(port)
    registers.write(FDIRVLAN(rawValue: 0))
    var hash = FDIRHASH(rawValue: 0)
    hash.bucket = input.hash(key: FDIRHKEY.bucket.rawValue) & Self.bucketMask
    hash.index = UInt32(number)
    registers.write(hash)
  }

  /// Gives a command and waits until the card has done it.
  private func run(_ command: FDIRCMD) throws(IxgbeError) {
    registers.write(command)
    try wait(for: FDIRCMD.self, within: .milliseconds(1)) { $0.command == 0 }
  }

  private func input(of flow: IxgbeFlow, number: Int, pool: Int) throws(IxgbeError) -> ExactInput {
    guard configuration.usesFlowDirector else { throw .unavailable("flow director without usesFlowDirector") }
    try Self.check(number, of: "exact flows", count: 32_768)
    guard let source = flow.source, let destination = flow.destination, let transport = flow.transport,
      transport == .other || (flow.sourcePort != nil && flow.destinationPort != nil)
    else { throw .unavailable("an exact flow that leaves a field open") }
    return ExactInput(
      source: source, destination: destination,
      sourcePort: transport == .other ? 0 : flow.sourcePort ?? 0,
      destinationPort: transport == .other ? 0 : flow.destinationPort ?? 0,
      transport: transport == .udp ? 1 : transport == .tcp ? 2 : 0,
      pool: configuration.isVirtualized ? UInt32(pool) : 0)
  }
}

/// What flow director hashes, with the fields that are left out as zero.
struct ExactInput: Hashable {
  var source, destination: UInt32
  var sourcePort, destinationPort: UInt16
  /// As in FDIRCMD.L4TYPE.
  var transport: UInt32
  var pool: UInt32

  /// Bit i of the key, 0 to 15, brings in the low word shifted by i, and bit 16 + i the high word. 7.1.2.7.4.
  func hash(key: UInt32) -> UInt32 {
    let tuple = source ^ destination ^ (UInt32(sourcePort) << 16 | UInt32(destinationPort))
    // Pool, transport, VLAN (left out).
    let head = pool << 24 | transport << 16
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
