/// Flow director, perfect match. 82599 datasheet 7.1.2.7. Reading "flow director".
enum FDIRCTRL {
  static let initialised: UInt32 = 1 << 3
  static let perfectMatch: UInt32 = 1 << 4
  static let reportStatus: UInt32 = 1 << 5
  static let reportAlways: UInt32 = 1 << 7
}
private enum FDIRCMD {
  static let command: UInt32 = 3
  static let valid: UInt32 = 1 << 2
  static let update: UInt32 = 1 << 3
  static let ipv6: UInt32 = 1 << 7
  static let clear: UInt32 = 1 << 8
  static let drop: UInt32 = 1 << 9
  static let queueEnable: UInt32 = 1 << 15
}

/// What a filter and a frame are compared by, as the registers hold it.
struct FlowKey: Equatable {
  /// IPv4's source address, or the last four bytes of IPv6's.
  var source: UInt32 = 0
  /// IPv4 only.
  var destination: UInt32 = 0
  /// The source in the lower half.
  var ports: UInt32 = 0
  /// The tag in the lower half, the flexible bytes in the upper.
  var tagAndFlexible: UInt32 = 0
  /// UDP 1, TCP 2, SCTP 3, other 0; with 4 for IPv6.
  var type: UInt8 = 0
  var pool: UInt8 = 0
  /// The first twelve bytes of an IPv6 source address, and nothing.
  var sourceUpper = SIMD4<UInt32>.zero

  func masked(by mask: FlowKey) -> FlowKey {
    FlowKey(
      source: source & mask.source, destination: destination & mask.destination, ports: ports & mask.ports,
      tagAndFlexible: tagAndFlexible & mask.tagAndFlexible, type: type & mask.type, pool: pool & mask.pool,
      sourceUpper: sourceUpper & mask.sourceUpper)
  }
}

/// The filters, in buckets by their hash.
///
/// `@safe`: bucket and entry numbers come from this type alone, and are masked.
@safe struct FlowDirectorTable {
  struct Filter {
    var key = FlowKey()
    var softwareIndex: UInt16 = 0
    var queue: UInt8 = 0
    var drops = false
    var choosesQueue = false
    var next: Int32 = -1
  }
  struct State {
    var isEnabled = false
    var bucketMask: UInt32 = 0x7FF
    var capacity = 0
    var count = 0
    var freeEntry: Int32 = -1
    var fresh = 0
    /// By kind: TCP, UDP, and the rest (whose ports are not looked at).
    var masks = (FlowKey(), FlowKey(), FlowKey())
    /// What IPv6's source addresses are masked with, in place of IPv4's.
    var source6 = SIMD4<UInt32>.zero
    var flexibleOffset = 0
    /// What the hash tables were made from.
    var key: UInt32?
  }
  private static let bucketCount = 8192
  private let buckets: UnsafeMutablePointer<Int32>
  private let filters: UnsafeMutablePointer<Filter>
  private let state: UnsafeMutablePointer<State>
  /// The hash of each byte of its two 32-bit inputs: it is linear.
  private let hashes: UnsafeMutablePointer<UInt16>

  init() {
    unsafe buckets = .allocate(capacity: Self.bucketCount)
    unsafe buckets.initialize(repeating: -1, count: Self.bucketCount)
    unsafe filters = .allocate(capacity: Self.bucketCount)
    unsafe filters.initialize(repeating: Filter(), count: Self.bucketCount)
    unsafe state = .allocate(capacity: 1)
    unsafe state.initialize(to: State())
    unsafe hashes = .allocate(capacity: 8 * 256)
    unsafe hashes.initialize(repeating: 0, count: 8 * 256)
  }
  func deallocate() {
    unsafe buckets.deallocate()
    unsafe filters.deallocate()
    unsafe state.deallocate()
    unsafe hashes.deallocate()
  }

  var isEnabled: Bool { unsafe state.pointee.isEnabled }
  var free: Int { unsafe max(state.pointee.capacity - state.pointee.count, 0) }
  @inline(__always) var current: UnsafeMutablePointer<State> { unsafe state }
  var settings: State {
    get { unsafe state.pointee }
    nonmutating set { unsafe state.pointee = newValue }
  }

  /// As after a reset: no filter, and disabled.
  func removeAll() {
    unsafe state.pointee = State()
    clear()
  }
  func clear() {
    unsafe buckets.update(repeating: -1, count: Self.bucketCount)
    unsafe state.pointee.count = 0
    unsafe state.pointee.fresh = 0
    unsafe state.pointee.freeEntry = -1
  }

  // MARK: hash

  /// - Parameter key: FDIRHKEY. 82599 datasheet 7.1.2.7.16.
  func setKey(_ key: UInt32) {
    if unsafe state.pointee.key == key { return }
    unsafe state.pointee.key = key
    for position in 0..<8 {
      for byte in 0..<256 {
        let word = UInt32(byte) << (8 * UInt32(position % 4))
        unsafe hashes[position * 256 + byte] =
          position < 4 ? Self.hash(key, fields: word, flow: 0) : Self.hash(key, fields: 0, flow: word)
      }
    }
  }

  /// The 350-bit stream of the datasheet repeats two words: the fields folded into one (addresses, ports, flexible
  /// bytes), and the flow word (pool, type, tag). Its product with the key, bit by bit, comes down to this.
  static func hash(_ key: UInt32, fields: UInt32, flow: UInt32) -> UInt16 {
    let high = fields ^ flow ^ flow >> 16
    let low = fields >> 16 | fields << 16
    var value: UInt32 = 0
    for bit in 0..<UInt32(16) {
      // The first bit of the stream comes before the flow word.
      let lower = bit == 0 ? low : low ^ flow ^ flow << 16
      if key >> bit & 1 != 0 { value ^= lower >> bit }
      if key >> (bit + 16) & 1 != 0 { value ^= high >> bit }
    }
    return UInt16(truncatingIfNeeded: value)
  }

  @inline(__always) func bucket(of key: FlowKey) -> UInt32 {
    // The flexible bytes are in network order, like the addresses, and stand in the upper half of their word.
    let flexible = (key.tagAndFlexible >> 16).byteSwapped
    let ports = key.ports >> 16 | key.ports << 16
    let upper = (key.sourceUpper[0] ^ key.sourceUpper[1] ^ key.sourceUpper[2]).byteSwapped
    let fields = key.source.byteSwapped ^ upper ^ key.destination.byteSwapped ^ ports ^ flexible
    let flow = UInt32(key.pool) << 24 | UInt32(key.type) << 16 | key.tagAndFlexible & 0xFFFF
    var value: UInt16 = 0
    var position = 0
    while position < 4 {
      let shift = UInt32(truncatingIfNeeded: position &* 8)
      value ^= unsafe hashes[position &* 256 &+ Int(fields &>> shift & 255)]
      value ^= unsafe hashes[(position &+ 4) &* 256 &+ Int(flow &>> shift & 255)]
      position &+= 1
    }
    return unsafe UInt32(value) & 0x1FFF & state.pointee.bucketMask
  }

  // MARK: filters

  /// The filter of a frame, and its bucket.
  @inline(__always) func match(_ frame: FlowKey, _ mask: FlowKey) -> (filter: Filter?, bucket: UInt32) {
    let key = frame.masked(by: mask)
    let bucket = bucket(of: key)
    var entry = unsafe buckets[Int(bucket)]
    while entry >= 0 {
      let filter = unsafe filters[Int(entry)]
      if filter.key.masked(by: mask) == key { return (filter, bucket) }
      entry = filter.next
    }
    return (nil, bucket)
  }

  /// By bucket and software index: the two together name a filter.
  private func find(_ bucket: UInt32, _ index: UInt16) -> Int32 {
    var entry = unsafe buckets[Int(bucket)]
    while entry >= 0 && (unsafe filters[Int(entry)].softwareIndex) != index { entry = unsafe filters[Int(entry)].next }
    return entry
  }
  private func bucket(_ hash: UInt32) -> UInt32 { unsafe hash & 0x1FFF & state.pointee.bucketMask }

  func contains(hash: UInt32, index: UInt16) -> Bool { find(bucket(hash), index) >= 0 }

  /// False: full, or there already and not to be updated.
  func add(_ filter: Filter, hash: UInt32, updates: Bool) -> Bool {
    let bucket = bucket(hash)
    var filter = filter
    let old = find(bucket, filter.softwareIndex)
    if old >= 0 {
      guard updates else { return false }
      filter.next = unsafe filters[Int(old)].next
      unsafe filters[Int(old)] = filter
      return true
    }
    guard unsafe state.pointee.count < state.pointee.capacity else { return false }
    var entry = unsafe state.pointee.freeEntry
    if entry >= 0 {
      unsafe state.pointee.freeEntry = filters[Int(entry)].next
    } else {
      entry = unsafe Int32(state.pointee.fresh)
      unsafe state.pointee.fresh += 1
    }
    filter.next = -1
    unsafe filters[Int(entry)] = filter
    // At the end: the first that was added is the first that is asked.
    var last = unsafe buckets[Int(bucket)]
    if last < 0 {
      unsafe buckets[Int(bucket)] = entry
    } else {
      while unsafe filters[Int(last)].next >= 0 { last = unsafe filters[Int(last)].next }
      unsafe filters[Int(last)].next = entry
    }
    unsafe state.pointee.count += 1
    return true
  }

  func remove(hash: UInt32, index: UInt16) -> Bool {
    let bucket = bucket(hash)
    let entry = find(bucket, index)
    guard entry >= 0 else { return false }
    let next = unsafe filters[Int(entry)].next
    if unsafe buckets[Int(bucket)] == entry {
      unsafe buckets[Int(bucket)] = next
    } else {
      var before = unsafe buckets[Int(bucket)]
      while unsafe filters[Int(before)].next != entry { before = unsafe filters[Int(before)].next }
      unsafe filters[Int(before)].next = next
    }
    unsafe filters[Int(entry)].next = state.pointee.freeEntry
    unsafe state.pointee.freeEntry = entry
    unsafe state.pointee.count -= 1
    return true
  }
}

// MARK: registers

extension SimulatedCard {
  func writeFlowDirector(_ value: UInt32, _ at: Int) -> Bool {
    guard at >= Offset.FDIRCTRL && at < Offset.FDIRCTRL + 0x80 else { return false }
    switch at {
    case Offset.FDIRCTRL:
      // Writing it starts the initialisation, whose end it tells.
      registers[at] = value & ~FDIRCTRL.initialised
      forget(.flowDirectorReady)
      schedule(.flowDirectorReady, after: faults.flowDirectorInitialisationTime)
      decodeFlowDirector()
    case Offset.FDIRCMD:
      command(value)
    case Offset.FDIRFREE, Offset.FDIRLEN, Offset.FDIRUSTAT, Offset.FDIRFSTAT, Offset.FDIRMATCH, Offset.FDIRMISS:
      break
    case Offset.FDIRSIPv6..<Offset.FDIRSIPv6 + 12, Offset.FDIRIPSA, Offset.FDIRIPDA, Offset.FDIRPORT, Offset.FDIRVLAN,
      Offset.FDIRHASH:
      // What the next command is about.
      registers[at] = value
    default:
      registers[at] = value
      decodeFlowDirector()
    }
    return true
  }

  func readFlowDirector(_ at: Int) -> UInt32? {
    switch at {
    case Offset.FDIRFREE: UInt32(flowDirector.free)
    case Offset.FDIRMATCH: CardCounters.take(&counters.flowMatches)
    case Offset.FDIRMISS: CardCounters.take(&counters.flowMisses)
    case Offset.FDIRUSTAT:
      CardCounters.take(&counters.flowAdds) & 0xFFFF | CardCounters.take(&counters.flowRemoves) << 16
    case Offset.FDIRFSTAT:
      CardCounters.take(&counters.flowFailedAdds) & 0xFF | (CardCounters.take(&counters.flowFailedRemoves) & 0xFF) << 8
    default: nil
    }
  }

  private func decodeFlowDirector() {
    var settings = flowDirector.settings
    let control = registers[Offset.FDIRCTRL]
    let allocation = Int(control & 3)
    settings.isEnabled = allocation != 0 && control & FDIRCTRL.perfectMatch != 0
    settings.capacity = allocation == 0 ? 0 : 1024 << allocation - 2
    settings.bucketMask = allocation == 0 ? 0x7FF : 0x400 << UInt32(allocation) - 1
    settings.flexibleOffset = Int(control >> 16 & 31) * 2
    // FDIRM and its like say what is not compared. The port masks have their bits in reverse order.
    let off = registers[Offset.FDIRM]
    var mask = FlowKey(
      source: ~registers[Offset.FDIRSIP4M], destination: ~registers[Offset.FDIRDIP4M], ports: 0, tagAndFlexible: 0,
      type: off & 8 != 0 ? 4 : 7, pool: off & 4 != 0 ? 0 : 0x7F)
    if off & 1 == 0 { mask.tagAndFlexible |= 0x0FFF }
    if off & 2 == 0 { mask.tagAndFlexible |= 0xE000 }
    if off & 16 == 0 { mask.tagAndFlexible |= 0xFFFF_0000 }
    settings.masks.2 = mask
    // Bit n of SIPM leaves the n-th byte on the wire out.
    let bytes = registers[Offset.FDIRIP6M]
    for word in 0..<4 {
      settings.source6[word] = (0..<4).reduce(UInt32(0)) {
        bytes >> UInt32(4 * word + $1) & 1 == 0 ? $0 | 0xFF << UInt32(8 * $1) : $0
      }
    }
    mask.ports = Self.portMask(registers[Offset.FDIRTCPM])
    settings.masks.0 = mask
    mask.ports = Self.portMask(registers[Offset.FDIRUDPM])
    settings.masks.1 = mask
    flowDirector.settings = settings
    flowDirector.setKey(registers[Offset.FDIRHKEY])
    line.filtersAreStale = true
  }

  private static func portMask(_ value: UInt32) -> UInt32 {
    func reversed(_ half: UInt16) -> UInt16 { (0..<16).reduce(0) { $0 | (half >> UInt16($1) & 1) << UInt16(15 - $1) } }
    return ~(UInt32(reversed(UInt16(value >> 16))) << 16 | UInt32(reversed(UInt16(value & 0xFFFF))))
  }

  /// A command takes effect at once. Reading "flow director".
  private func command(_ value: UInt32) {
    if value & FDIRCMD.clear != 0 { flowDirector.clear() }
    let hash = registers[Offset.FDIRHASH]
    let index = UInt16(truncatingIfNeeded: hash >> 16)
    var answer = value & ~(FDIRCMD.command | FDIRCMD.valid)
    switch value & FDIRCMD.command {
    case 1:
      let isIPv6 = value & FDIRCMD.ipv6 != 0
      var key = FlowKey(
        source: registers[Offset.FDIRIPSA], destination: isIPv6 ? 0 : registers[Offset.FDIRIPDA],
        ports: registers[Offset.FDIRPORT], tagAndFlexible: registers[Offset.FDIRVLAN],
        type: UInt8(value >> 5 & 3) | (isIPv6 ? 4 : 0), pool: UInt8(value >> 24 & 0x7F))
      if isIPv6 { for word in 0..<3 { key.sourceUpper[word] = registers[Offset.FDIRSIPv6 + 4 * word] } }
      let filter = FlowDirectorTable.Filter(
        key: key,
        softwareIndex: index, queue: UInt8(value >> 16 & 0x7F), drops: value & FDIRCMD.drop != 0,
        choosesQueue: value & FDIRCMD.queueEnable != 0)
      let isReady = flowDirector.isEnabled && registers[Offset.FDIRCTRL] & FDIRCTRL.initialised != 0
      // The card's own address, with which it would compare an IPv6 destination, is not modelled.
      let isModelled = !isIPv6 || registers[Offset.FDIRM] & 0x20 != 0
      if isReady && isModelled
        && flowDirector.add(filter, hash: hash, updates: value & FDIRCMD.update != 0)
      {
        counters.flowAdds &+= 1
      } else {
        counters.flowFailedAdds &+= 1
      }
    case 2:
      if flowDirector.remove(hash: hash, index: index) {
        counters.flowRemoves &+= 1
      } else {
        counters.flowFailedRemoves &+= 1
      }
    case 3:
      if flowDirector.contains(hash: hash, index: index) { answer |= FDIRCMD.valid }
    default: break
    }
    registers[Offset.FDIRCMD] = answer
  }

  /// Asks the filters about a frame.
  func addFlowDirector(_ result: inout Steering, _ bytes: UnsafeRawPointer, _ headers: FrameHeaders, _ pool: Int) {
    let flags = headers.flags
    guard flags.contains(.ipv4) || flags.contains(.ipv6), registers[Offset.FDIRCTRL] & FDIRCTRL.initialised != 0 else { return }
    let settings = unsafe flowDirector.current
    if unsafe settings.pointee.count == 0 {
      result.flowLookup = .miss
      counters.count(.miss)
      return
    }
    var key = FlowKey(
      source: headers.sourceAddress, destination: headers.destinationAddress, tagAndFlexible: UInt32(headers.tag),
      pool: UInt8(pool))
    var mask = unsafe settings.pointee.masks.2
    if flags.contains(.tcp) {
      (key.type, mask) = (2, unsafe settings.pointee.masks.0)
    } else if flags.contains(.udp) {
      (key.type, mask) = (1, unsafe settings.pointee.masks.1)
    } else if flags.contains(.sctp) {
      key.type = 3
    }
    if flags.contains(.ipv6) {
      let source = unsafe (bytes + Int(headers.networkOffset) + 8).loadUnaligned(as: SIMD4<UInt32>.self)
      key.type |= 4
      (key.source, key.sourceUpper) = (source[3], SIMD4(source[0], source[1], source[2], 0))
      let words = unsafe settings.pointee.source6
      (mask.source, mask.sourceUpper) = (words[3], SIMD4(words[0], words[1], words[2], 0))
      (key.destination, mask.destination) = (0, 0)
    }
    key.ports = UInt32(headers.destinationPort) << 16 | UInt32(headers.sourcePort)
    // An IP frame has at least 34 bytes, and the offset goes up to 62: past the end there is nothing to compare.
    let flexible = unsafe settings.pointee.flexibleOffset
    if mask.tagAndFlexible >> 16 != 0 && flexible + 2 <= Int(headers.networkOffset) + 20 {
      key.tagAndFlexible |= UInt32(unsafe bytes.loadUnaligned(fromByteOffset: flexible, as: UInt16.self)) << 16
    }
    let (filter, bucket) = flowDirector.match(key, mask)
    result.flowLookup = filter == nil ? .miss : .match
    counters.count(result.flowLookup)
    guard let filter else { return }
    result.filter = FilterCounters.exactFlow(Int(filter.softwareIndex))
    let control = registers[Offset.FDIRCTRL]
    if control & (FDIRCTRL.reportStatus | FDIRCTRL.reportAlways) != 0 {
      result.status |= 1 << 2
      result.word = result.word & 0x1_FFF0 | UInt64(bucket) << 48 | UInt64(filter.softwareIndex) << 32
    }
    if filter.drops {
      result.queue = Int(control >> 8 & 0x7F)
      result.isDropAction = true
    } else if filter.choosesQueue {
      result.queue = Int(filter.queue)
    }
  }
}
