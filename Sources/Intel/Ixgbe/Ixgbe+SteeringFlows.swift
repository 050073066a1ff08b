internal import Bus
internal import FlowSteering
internal import FlowTables

// The order of the steps is told in Ixgbe+Steering.
extension Ixgbe {
  func write(_ filter: CardTables.FiveTuple, slot: Int) {
    registers.write(SAQF(rawValue: (filter.source ?? 0).byteSwapped), slot)
    registers.write(DAQF(rawValue: (filter.destination ?? 0).byteSwapped), slot)
    let ports = (UInt32((filter.sourcePort ?? 0).byteSwapped), UInt32((filter.destinationPort ?? 0).byteSwapped))
    registers.write(SDPQF(rawValue: ports.1 << 16 | ports.0), slot)
    writeTarget(filter, slot: slot)
    registers.write(Self.flowFilter(filter), slot)
  }
  private func writeTarget(_ filter: CardTables.FiveTuple, slot: Int) {
    var target = L34TIMIR(rawValue: 0)
    target.ignoresSize = true
    target.reserved = 0b1000000
    target.queue = number(of: filter.queue)
    if registers.read(L34TIMIR.self, slot).rawValue != target.rawValue { registers.write(target, slot) }
  }
  private static func flowFilter(_ entry: CardTables.FiveTuple) -> FTQF {
    var filter = FTQF(rawValue: 0)
    filter.transport =
      switch entry.transport {
      case .tcp, nil: 0
      case .udp: 1
      case .sctp: 2
      }
    filter.priority = UInt32(entry.priority)
    filter.pool = UInt32(entry.pool ?? 0)
    filter.ignoresPool = entry.pool == nil
    let ignored = [entry.source == nil, entry.destination == nil, entry.sourcePort == nil, entry.destinationPort == nil, entry.transport == nil]
    filter.ignores = ignored.enumerated().reduce(0) { $1.element ? $0 | 1 << UInt32($1.offset) : $0 }
    filter.isEnabled = true
    return filter
  }

  private func priority(_ slot: Int) -> Int { Int(registers.read(FTQF.self, slot).priority) }
  private func setPriority(_ priority: Int, _ slot: Int) {
    registers.modify(FTQF.self, slot) { $0.priority = UInt32(priority) }
  }

  /// Whether new filters can stand above the old ones for a while.
  func hasRoomForBoth(_ old: CardTables, _ new: CardTables) -> Bool {
    if canChangeInPlace(old, new) { return true }
    return old.fiveTuples.count + new.fiveTuples.count <= 128 && Self.levels(old) + Self.levels(new) <= 7
  }
  private static func levels(_ tables: CardTables) -> Int { Set(tables.fiveTuples.map(\.priority)).count }

  /// Whether what comes, goes, or changes its queue shares frames with nothing else, and the rest stays as it is.
  private func canChangeInPlace(_ old: CardTables, _ new: CardTables) -> Bool {
    let before = Dictionary(old.fiveTuples.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
    let after = Dictionary(new.fiveTuples.map { ($0.key, $0) }, uniquingKeysWith: { first, _ in first })
    var changed: [CardTables.FiveTuple] = []
    var kept: [CardTables.FiveTuple] = []
    for entry in new.fiveTuples {
      guard let known = before[entry.key] else {
        changed.append(entry)
        continue
      }
      if known.priority != entry.priority { return false }
      if known.queue == entry.queue { kept.append(entry) } else { changed.append(entry) }
    }
    changed += old.fiveTuples.filter { after[$0.key] == nil }
    let fresh = new.fiveTuples.count(where: { before[$0.key] == nil })
    guard changed.count <= 32, fresh <= 128 - old.fiveTuples.count else { return changed.isEmpty }
    for (index, entry) in changed.enumerated() {
      for other in kept + changed[(index + 1)...] where entry.overlaps(other) { return false }
    }
    return true
  }

  /// New filters come in above the old ones, the highest first.
  func addTuples(from old: CardTables, to new: CardTables) throws(IntelError) {
    if canChangeInPlace(old, new) {
      for entry in new.fiveTuples {
        if let slot = steering.tupleSlots[entry.key] { writeTarget(entry, slot: slot) } else { try addTuple(entry) }
      }
      return
    }
    // Nothing is received if they cannot stand side by side: then the old ones go at once.
    if !hasRoomForBoth(old, new) {
      for slot in steering.tupleSlots.values { clearTuple(slot) }
      steering.tupleSlots = [:]
      for entry in new.fiveTuples { try addTuple(entry) }
      return
    }
    // The old ones step down, the lowest first: their order stays.
    var next = 0
    var last = 0
    for slot in steering.tupleSlots.values.sorted(by: { priority($0) < priority($1) }) {
      let now = priority(slot)
      if now != last { (last, next) = (now, next + 1) }
      setPriority(next, slot)
    }
    steering.oldTupleSlots = steering.tupleSlots
    steering.tupleSlots = [:]
    let distinct = Set(new.fiveTuples.map(\.priority)).sorted()
    for entry in new.fiveTuples.sorted(by: { $0.priority > $1.priority }) {
      var placed = entry
      placed.priority = next + 1 + (distinct.firstIndex(of: entry.priority) ?? 0)
      try addTuple(placed)
    }
  }

  func addTuple(_ entry: CardTables.FiveTuple) throws(IntelError) {
    guard let slot = steering.freeTupleSlots.popLast() else { throw .tableFull("five-tuple filters", count: 128) }
    write(entry, slot: slot)
    steering.tupleSlots[entry.key] = slot
  }
  private func clearTuple(_ slot: Int) {
    registers.write(FTQF(rawValue: 0), slot)
    steering.freeTupleSlots.append(slot)
  }

  /// Old filters go, the lowest first; what is left rises to where it belongs, the highest first.
  func removeTuples(from old: CardTables, to new: CardTables) throws(IntelError) {
    for slot in steering.oldTupleSlots.values.sorted(by: { priority($0) < priority($1) }) { clearTuple(slot) }
    steering.oldTupleSlots = [:]
    let wanted = Dictionary(new.fiveTuples.map { ($0.key, $0.priority) }, uniquingKeysWith: { first, _ in first })
    for (key, slot) in steering.tupleSlots where wanted[key] == nil {
      clearTuple(slot)
      steering.tupleSlots[key] = nil
    }
    for (key, slot) in steering.tupleSlots.sorted(by: { priority($0.value) > priority($1.value) }) {
      if let priority = wanted[key], priority != self.priority(slot) { setPriority(priority, slot) }
    }
  }

  func addExactFlows(_ new: CardTables) throws(IntelError) {
    for flow in new.exactFlows {
      guard let known = steering.flows[flow.key] else {
        // In a full table room must be made first.
        if steering.flows.count == configuration.flowDirector.filterCount { try removeExactFlows(notIn: new) }
        try add(flow)
        continue
      }
      if known.entry != flow { steering.flows[flow.key] = (known.number, flow) }
      // One command moves it from queue to queue.
      if known.entry.queue != flow.queue {
        try add(input(of: flow), number: known.number, queue: queue(of: flow))
      }
    }
  }

  func removeExactFlows(notIn new: CardTables) throws(IntelError) {
    let wanted = Set(new.exactFlows.map(\.key))
    try removeExactFlows { !wanted.contains($0.key) }
  }
  func removeExactFlows(where isUnwanted: (CardTables.ExactFlow) -> Bool) throws(IntelError) {
    for (key, flow) in steering.flows where isUnwanted(flow.entry) {
      steering.flows[key] = nil
      steering.freeFlowNumbers.append(flow.number)
      try remove(input(of: flow.entry), number: flow.number)
    }
  }

  // MARK: Flow director

  private func input(of flow: CardTables.ExactFlow) -> ExactInput {
    let transport: UInt32 =
      switch flow.transport {
      case .udp: 1
      case .tcp: 2
      case .sctp: 3
      case nil: 0
      }
    return ExactInput(
      source: flow.source, destination: flow.destination, sourcePort: flow.sourcePort, destinationPort: flow.destinationPort,
      transport: transport, pool: UInt32(flow.pool ?? 0), isIPv6: flow.version == .v6, tag: flow.tag, flexible: flow.flexible)
  }
  private func queue(of flow: CardTables.ExactFlow) -> Int? { flow.queue.map { Int(number(of: $0)) } }

  func add(_ flow: CardTables.ExactFlow) throws(IntelError) {
    let number = steering.freeFlowNumbers.popLast() ?? steering.nextFlowNumber
    if number == steering.nextFlowNumber { steering.nextFlowNumber += 1 }
    steering.flows[flow.key] = (number, flow)
    try add(input(of: flow), number: number, queue: queue(of: flow))
  }

  /// The mask is one for all filters, so they go and come back with it. Nothing is received meanwhile if there are any:
  /// no filter must not mean another queue.
  func changeFlowMask(from old: CardTables, to new: CardTables) throws(IntelError) {
    guard let mask = new.flowMask, mask != old.flowMask else { return }
    guard configuration.flowDirector != .off else { throw .unavailable("flow director, which has no memory") }
    try makeFlowDirector(mask, old.exactFlows.isEmpty ? [] : new.exactFlows)
  }

  /// Forgets all of flow director's filters, and makes these.
  func makeFlowDirector(_ mask: CardTables.FlowMask?, _ flows: [CardTables.ExactFlow]) throws(IntelError) {
    var command = FDIRCMD(rawValue: 0)
    command.clears = true
    registers.write(command)
    (steering.flows, steering.freeFlowNumbers, steering.nextFlowNumber) = ([:], [], 0)
    try initializeFlowDirector(comparing: mask)
    for flow in flows { try add(flow) }
  }
}
