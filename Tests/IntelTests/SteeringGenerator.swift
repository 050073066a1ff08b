import FlowSteering
import Simulation

/// Random rules and frames that meet: both draw from the same few addresses, VLANs and ports.
struct SteeringGenerator {
  var seed: Seed

  var addresses = (1...4).map { MACAddress.local($0) }
  var groups = [MACAddress(0x0100_5E00_0001), MACAddress(0x3333_0000_0001)]
  var vlans: [UInt16] = [0, 1, 100, 200]
  var hosts4: [UInt32] = [0x0A00_0001, 0x0A00_0002, 0x0A01_0001, 0xC0A8_0001]
  var hosts6: [UInt128] = [1, 2, 3].map { 0x2001_0DB8 << 96 | $0 }
  var ports: [UInt16] = [53, 80, 443, 4096]
  var types: [UInt16] = [0x0806, 0x88F7, 0x88CC]

  init(seed: Seed) { self.seed = seed }

  /// Draws from what frames of a trace have, so that rules meet them.
  init(seed: Seed, meeting frames: [[UInt8]]) {
    self.seed = seed
    for frame in frames.shuffled(using: &self.seed).prefix(6) {
      guard let fields = FrameFields(frame.span) else { continue }
      let address = MACAddress(fields.destination)
      if address.isGroup { groups.append(address) } else { addresses.append(address) }
      if let tag = fields.tag { vlans.append(tag & 0xFFF) }
      if fields.ipVersion == nil && fields.etherType >= 0x600 { types.append(fields.etherType) }
      if fields.ipVersion == .v4 { hosts4 += [UInt32(fields.sourceAddress), UInt32(fields.destinationAddress)] }
      if fields.ipVersion == .v6 { hosts6 += [fields.sourceAddress, fields.destinationAddress] }
      if fields.transport != nil { ports += [fields.sourcePort, fields.destinationPort] }
    }
    // What a VM may have as its own.
    addresses = Array(Set(addresses)).sorted().suffix(8)
  }

  mutating func chance(_ of: Int) -> Bool { Int.random(in: 0..<of, using: &seed) == 0 }
  mutating func one<T>(_ list: [T]) -> T { list[Int.random(in: 0..<list.count, using: &seed)] }

  // MARK: Rules

  mutating func receivers() -> [Receiver] {
    let count = Int.random(in: 1...4, using: &seed)
    let usesVLANs = chance(3)
    let queues = one([1, 2, 4])
    let own = addresses.shuffled(using: &seed)
    return (0..<count).map { number in
      Receiver(
        name: "vm\(number)", queueCount: one([1, 2, 4].filter { $0 <= queues }), address: chance(4) ? nil : own[number],
        vlan: usesVLANs && chance(2) ? one([1, 100]) : nil)
    }.map { receiver in
      var receiver = receiver
      if receiver.address == nil { receiver.vlan = nil }
      return receiver
    }
  }

  mutating func rules(for receivers: [Receiver]) -> [Rule] {
    // Sets of a kind are more likely to fit a card than wild ones.
    let kind = Int.random(in: 0..<5, using: &seed)
    return (0..<Int.random(in: 0...8, using: &seed)).map { number in
      var rule = Rule(match: match(kind), decision: decision(receivers))
      rule.priority = one([10, 20, 30, 40]) + (chance(2) ? number : 0)
      if chance(8) { rule.group = 1 }
      if chance(4) { rule.owner = one(receivers).name }
      return rule
    }
  }

  private mutating func decision(_ receivers: [Receiver]) -> Rule.Decision {
    let receiver = one(receivers)
    switch Int.random(in: 0..<10, using: &seed) {
    case 0: return .drop
    case 1: return .host
    case 2: return .queue(Int.random(in: 0..<(receivers.map(\.queueCount).min() ?? 1), using: &seed))
    case 3: return .deliver([Rule.Target(receiver.name, queue: Int.random(in: 0..<receiver.queueCount, using: &seed))])
    case 4: return .deliver(receivers.shuffled(using: &seed).prefix(2).map { Rule.Target($0.name) })
    default: return .deliver([Rule.Target(receiver.name)])
    }
  }

  private mutating func match(_ kind: Int) -> Match {
    var match = Match()
    func add(_ field: Field, _ value: UInt128, _ mask: UInt128? = nil) {
      let mask = mask ?? field.fullMask
      try? match.insert(Match.Pair(field, .bits(value & mask, mask: mask)))
    }
    switch kind == 4 ? Int.random(in: 0..<4, using: &seed) : kind {
    case 0:
      // Addresses.
      if !chance(4) { add(.ethernetDestination, UInt128(one(addresses + groups + [.broadcast]).rawValue), chance(5) ? 1 << 40 : nil) }
      if chance(3) { chance(3) ? try? match.insert(Match.Pair(.vlanID, .absent)) : add(.vlanID, UInt128(one(vlans))) }
      if match.pairs.isEmpty && chance(2) { add(.etherType, UInt128(one(types))) }
    case 1:
      // Exact flows.
      let isV6 = chance(3)
      let transport = one([Transport.tcp, .udp, .udp, .sctp])
      add(isV6 ? .ip6Source : .ip4Source, isV6 ? one(hosts6) : UInt128(one(hosts4)))
      if !isV6 { add(.ip4Destination, UInt128(one(hosts4))) }
      add(transport.source, UInt128(one(ports)))
      add(transport.destination, UInt128(one(ports)))
    case 2:
      // Parts of flows.
      if chance(2) { add(.etherType, 0x0800) }
      if chance(3) { add(.ip4Source, UInt128(one(hosts4)), chance(3) ? 0xFFFF_0000 : nil) }
      if chance(3) { add(.ip4Destination, UInt128(one(hosts4))) }
      let transport = one(Transport.allCases)
      if chance(2) { add(transport.destination, UInt128(one(ports)), chance(6) ? 0xFFF0 : nil) }
      if chance(5) { add(transport.source, UInt128(one(ports))) }
      if match.transport == nil { chance(2) ? add(.ipProtocol, UInt128(transport.number)) : add(.ipFragment, 0) }
    default:
      // By VLAN and host, as flow director can.
      add(.vlanID, UInt128(one([1, 100, 200])))
      chance(3) ? add(.ip6Source, one(hosts6)) : add(.ip4Source, UInt128(one(hosts4)))
      if chance(10) { add(.tcpFlags, 2, 2) }
    }
    if chance(25) { match = Match([Match.Pair(.tcpFlags, .bits(2, mask: 2))]) }
    return match
  }

  // MARK: Frames

  mutating func frame() -> [UInt8] {
    var bytes: [UInt8] = []
    func put(_ value: some FixedWidthInteger, _ count: Int) {
      for index in (0..<count).reversed() { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * index))) }
    }
    let known = addresses + groups + [.broadcast]
    put(chance(8) ? UInt64.random(in: 0..<1 << 48, using: &seed) : one(known).rawValue, 6)
    put(UInt64(0x0200_0000_00EE), 6)
    for _ in 0..<(chance(3) ? chance(4) ? 2 : 1 : 0) {
      put(UInt16(0x8100), 2)
      put((chance(6) ? UInt16.random(in: 0...4095, using: &seed) : one(vlans)) | UInt16.random(in: 0...15, using: &seed) << 12, 2)
    }
    switch Int.random(in: 0..<8, using: &seed) {
    case 0:
      put(one(types + [0x88B5, 0x88A8]), 2)
      bytes += Array(repeating: 0, count: 46)
    case 1, 2, 3: bytes += ip6()
    default: bytes += ip4()
    }
    // Cut short, or with a byte that is not as it was.
    if chance(12) { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &seed)) }
    if chance(12), !bytes.isEmpty { bytes[Int.random(in: 0..<bytes.count, using: &seed)] = .random(in: 0...255, using: &seed) }
    return bytes
  }

  private mutating func transport() -> (number: UInt8, bytes: [UInt8]) {
    let (from, to) = (one(ports + [9]), one(ports + [9]))
    let ports = [UInt8(from >> 8), UInt8(from & 255), UInt8(to >> 8), UInt8(to & 255)]
    switch Int.random(in: 0..<9, using: &seed) {
    case 0, 1, 2: return (6, ports + Array(repeating: 0, count: 8) + [0x50, one([2, 0x12, 0x10]), 0, 0, 0, 0, 0, 0])
    case 3, 4, 5: return (17, ports + [0, 12, 0, 0, 1, 2, 3, 4])
    case 6: return (132, ports + Array(repeating: 0, count: 12))
    default: return (one([1, 47, 58]), [8, 0, 0, 0, 1, 2, 3, 4])
    }
  }

  private mutating func ip4() -> [UInt8] {
    let (number, payload) = transport()
    let options = chance(6) ? Int.random(in: 1...10, using: &seed) : 0
    let total = 20 + 4 * options + payload.count
    let position: UInt16 = chance(8) ? one([0x2000, 0x0010, 0x2010]) : chance(3) ? 0x4000 : 0
    var bytes: [UInt8] = [0x08, 0x00, 0x45 + UInt8(options), one([0, 0xB8]), UInt8(total >> 8), UInt8(total & 255), 0, 0]
    bytes += [UInt8(position >> 8), UInt8(position & 255), 64, number, 0, 0]
    for host in [one(hosts4), one(hosts4)] { bytes += (0..<4).map { UInt8(truncatingIfNeeded: host >> UInt32(24 - 8 * $0)) } }
    return bytes + Array(repeating: 1, count: 4 * options) + payload
  }

  private mutating func ip6() -> [UInt8] {
    var (next, payload) = transport()
    if chance(4) {
      for _ in 0...Int.random(in: 0...2, using: &seed) {
        if chance(3) {
          payload = [next, 0, 0, one([0, 1, 8]), 0, 0, 0, 1] + payload
          next = 44
        } else {
          payload = [next, 0, 1, 4, 0, 0, 0, 0] + payload
          next = one([0, 43, 60])
        }
      }
    }
    var bytes: [UInt8] = [0x86, 0xDD, 0x60, 0, 0, 0, UInt8(payload.count >> 8), UInt8(payload.count & 255), next, 64]
    for host in [one(hosts6), one(hosts6)] { bytes += (0..<16).map { UInt8(truncatingIfNeeded: host >> UInt128(120 - 8 * $0)) } }
    return bytes + payload
  }
}
