/// Where in its pool a frame goes, and what its descriptor says of that.
struct Steering {
  /// Whether flow director was asked, and knew the flow.
  enum FlowLookup: UInt8 { case none, miss, match }
  var queue: Int
  /// The descriptor's first word: hash type, packet type, hash.
  var word: UInt64
  /// Bits of its status.
  var status: UInt32 = 0
  var isDropAction = false
  /// The filter that has chosen the queue, as a place in `FilterCounters`; 0: none has.
  var filter = 0
  var flowLookup = FlowLookup.none
  /// LB: another pool has sent it. 82599 datasheet 7.1.6.2.
  static let switched: UInt32 = 1 << 18
}

extension SimulatedCard {
  /// 82599 datasheet 7.1.2: EtherType, SYN and 5-tuple, flow director, RSS and traffic class; the first that hits decides.
  @inline(__always) func steer(_ bytes: UnsafeRawPointer, _ headers: FrameHeaders, _ pool: Int) -> Steering {
    let state = unsafe filters.current
    let packetType = UInt64(headers.flags.rawValue & 0x7F) << 4
    let first = unsafe pool &<< state.pointee.poolShift
    if unsafe !state.pointee.steers { return Steering(queue: first, word: packetType) }
    return unsafe steerByFilters(bytes, headers, pool, first, packetType)
  }

  @inline(never) private func steerByFilters(
    _ bytes: UnsafeRawPointer, _ headers: FrameHeaders, _ pool: Int, _ first: Int, _ packetType: UInt64
  ) -> Steering {
    let state = unsafe filters.current
    var result = Steering(queue: first, word: packetType)
    if unsafe state.pointee.usesEtherType, let filter = filters.etherTypeFilter(headers, registers) {
      let n = Int(filter >> 16 & 7)
      result.word = 0x8000 | UInt64(n) << 4
      let select = registers[Offset.ETQS + 4 * n]
      if select >> 31 != 0 {
        result.queue = Int(select >> 16 & 0x7F)
        return result
      }
    }
    // RSS is computed for whatever the descriptor reports, also where another filter decides.
    unsafe addScaling(&result, bytes, headers, pool)
    let isSYN = unsafe state.pointee.usesSYN && headers.flags.contains(.tcpSYN)
    if unsafe isSYN && state.pointee.synFirst {
      (result.queue, result.filter) = (unsafe state.pointee.synQueue, FilterCounters.syn)
      return result
    }
    if unsafe state.pointee.tupleCount > 0, let tuple = tuple(headers, pool) {
      (result.queue, result.filter) = (Int(tuple.queue), FilterCounters.fiveTuple(Int(tuple.number)))
      return result
    }
    if isSYN {
      (result.queue, result.filter) = (unsafe state.pointee.synQueue, FilterCounters.syn)
      return result
    }
    if unsafe state.pointee.usesFlowDirector {
      unsafe addFlowDirector(&result, bytes, headers, unsafe state.pointee.isVirtualised ? pool : 0)
    }
    return result
  }

  /// The first 5-tuple filter that matches. IPv4 only. 82599 datasheet 7.1.2.5.
  private func tuple(_ headers: FrameHeaders, _ pool: Int) -> CardFilters.Tuple? {
    let flags = headers.flags
    guard flags.contains(.ipv4), !flags.contains(.fragment) else { return nil }
    let number: UInt8 = flags.contains(.tcp) ? 0 : flags.contains(.udp) ? 1 : flags.contains(.sctp) ? 2 : 3
    for index in 0..<(unsafe filters.current.pointee.tupleCount) {
      let tuple = unsafe filters.tuples[index]
      if (tuple.ignored & 1 != 0 || tuple.source == headers.sourceAddress)
        && (tuple.ignored & 2 != 0 || tuple.destination == headers.destinationAddress)
        && (tuple.ignored & 4 != 0 || tuple.sourcePort == headers.sourcePort)
        && (tuple.ignored & 8 != 0 || tuple.destinationPort == headers.destinationPort)
        && (tuple.ignored & 16 != 0 || tuple.protocolNumber == number)
        && (tuple.pool == 255 || Int(tuple.pool) == pool)
      {
        return tuple
      }
    }
    return nil
  }

  /// RSS and traffic classes. 82599 datasheet 7.1.2.8 and 7.1.2.2.
  private func addScaling(_ result: inout Steering, _ bytes: UnsafeRawPointer, _ headers: FrameHeaders, _ pool: Int) {
    let state = unsafe filters.current
    if unsafe state.pointee.usesTrafficClass {
      let priority = UInt32(headers.tag >> 13)
      let trafficClass = Int(registers[Offset.RTRUP2TC] >> (3 * priority) & 7)
      result.queue &+= unsafe trafficClass &<< state.pointee.trafficClassShift
    }
    guard unsafe state.pointee.usesRSS, let (hash, type) = unsafe scalingHash(bytes, headers) else { return }
    if line.reportsHash { result.word |= UInt64(type) | UInt64(hash) << 32 }
    let entry = Int(hash & 127)
    let index = Int(registers[Offset.RETA + entry & ~3] >> UInt32(entry % 4 * 8) & 15)
    if unsafe state.pointee.isVirtualised {
      // RQPL: how many bits of the index this pool uses.
      let bits = registers[Offset.PSRTYPE + 4 * pool] >> 29
      result.queue &+= unsafe index & (1 << Int(bits) - 1) & (state.pointee.queuesInPool - 1)
    } else {
      result.queue &+= index
    }
  }

  /// The hash and the RSS type of the descriptor, or nil for a frame that is not hashed.
  private func scalingHash(_ bytes: UnsafeRawPointer, _ headers: FrameHeaders) -> (UInt32, UInt32)? {
    let fields = unsafe filters.current.pointee.rssFields
    let flags = headers.flags
    let network = unsafe bytes + Int(headers.networkOffset)
    let ports = unsafe bytes + Int(headers.transportOffset)
    if flags.contains(.ipv4) {
      let type: UInt32? =
        if flags.contains(.tcp) && fields & 1 << 16 != 0 { 1 }
        else if flags.contains(.udp) && fields & 1 << 22 != 0 { 7 }
        else if fields & 1 << 17 != 0 { 2 } else { nil }
      guard let type else { return nil }
      var hash = unsafe rss.hash(network + 12, 8)
      if type != 2 { hash ^= unsafe rss.hash(ports, 4, after: 8) }
      return (hash, type)
    }
    if flags.contains(.ipv6) {
      // Reading "RSS and extension headers".
      let isPlain = !flags.contains(.ipv6Extensions)
      let type: UInt32? =
        if isPlain && flags.contains(.tcp) && fields & 1 << 21 != 0 { 3 }
        else if isPlain && flags.contains(.udp) && fields & 1 << 23 != 0 { 8 }
        else if fields & 1 << 20 != 0 { 5 } else { nil }
      guard let type else { return nil }
      var hash = unsafe rss.hash(network + 8, 32)
      if type != 5 { hash ^= unsafe rss.hash(ports, 4, after: 32) }
      return (hash, type)
    }
    return nil
  }
}
