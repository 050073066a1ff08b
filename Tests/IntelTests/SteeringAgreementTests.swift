import Bus
import Capture
import FlowSteering
import FlowTables
import Foundation
import Simulation
import Testing

@testable import Intel

/// Rules, made into tables, written by the driver into the register-level model: what the model does with a frame is
/// what the reference classifier says, frame by frame. None of the three was written from another.
@Suite struct SteeringAgreementTests {
  /// A card with rules, whose queues do not run: that a frame is looked for in one is what its drop says.
  /// `@safe`: notes live as long as it does.
  @safe final class Bench {
    let clock = SimulatedClock()
    let card: SimulatedCard
    let device: Ixgbe
    let plan: PoolPlan

    let registers: BusyRegisters

    init(_ steering: Steering) throws {
      let space = SimulatedIOMMU(clock: clock)
      card = SimulatedCard(dma: space, clock: clock)
      plan = try #require(PoolPlan(.intel82599, vmCount: steering.receivers.count, queuesEach: steering.receivers.map(\.queueCount).max() ?? 1))
      var configuration = Ixgbe.Configuration()
      configuration.poolCount = plan.count
      configuration.queuesPerPool = steering.receivers.map(\.queueCount).max() ?? 1
      configuration.usedQueues = steering.receivers.map(\.queueCount) + Array(repeating: 1, count: plan.count - plan.vmCount)
      configuration.flowDirector = .filters2046
      configuration.mtu = 9710
      registers = BusyRegisters(card)
      device = try Ixgbe(registers: registers, space: space, allocator: IOVAAllocator(), clock: clock, configuration: configuration)
      try device.enableReceive()
      try device.waitForLink()
    }

    private var known: [[UInt8]: UnsafeMutablePointer<FrameNotes>] = unsafe [:]
    private func notes(of frame: [UInt8]) -> UnsafeMutablePointer<FrameNotes> {
      if let found = unsafe known[frame] { return unsafe found }
      let notes = UnsafeMutablePointer<FrameNotes>.allocate(capacity: 1)
      let headers = unsafe frame.withUnsafeBytes { bytes in
        guard let base = bytes.baseAddress, bytes.count > 0 else { return FrameHeaders() }
        return unsafe FrameHeaders(parsing: base, count: bytes.count)
      }
      unsafe notes.initialize(to: FrameNotes(headers))
      unsafe known[frame] = notes
      return unsafe notes
    }
    deinit { for unsafe notes in unsafe known.values { unsafe notes.deallocate() } }

    /// Where a frame went: queues of VMs, and the host.
    enum Place: Hashable, Comparable {
      case vm(Int, queue: Int)
      case host
    }

    /// With what the card has noted of the frame before, whatever was written to registers since; and at once again, when
    /// that is sure to be used.
    func receive(_ frame: [UInt8]) -> [Place]? {
      let notes = unsafe notes(of: frame)
      let (first, arrival) = unsafe frame.withUnsafeBytes { bytes -> (Arrival, Arrival) in
        guard let base = bytes.baseAddress, bytes.count > 0 else { return (.dropped(.undersize, queue: nil), .dropped(.undersize, queue: nil)) }
        let wire = unsafe WireFrame(bytes: base, count: bytes.count, notes: notes)
        return unsafe (card.receive(wire), card.receive(wire))
      }
      #expect(first == arrival, "a frame that the card has seen before goes elsewhere")
      switch arrival {
      case .dropped(.queueDisabled, let queue?): return place(queue).map { [$0] } ?? []
      case .dropped(.noPool, _), .dropped(.filtered, _), .dropped(.undersize, _): return []
      case .replicated: return card.copies.compactMap { $0.drop == .filtered ? nil : place($0.queue) }.sorted()
      default: return nil
      }
    }

    private func place(_ queue: Int) -> Place? {
      let (pool, number) = (queue / plan.queuesEach, queue % plan.queuesEach)
      if pool < plan.vmCount { return .vm(pool, queue: number) }
      return pool == plan.host ? .host : nil
    }
  }

  /// A card's registers on a busy wire: between any two writes something happens.
  final class BusyRegisters: RegisterFile {
    let card: SimulatedCard
    var between: () -> Void = {}
    /// Commands of flow director until one does not end, nor any other before the filters are cleared; nil: all do.
    var commandsLeft: Int?
    init(_ card: SimulatedCard) { self.card = card }
    func read(_ offset: Int) -> UInt32 {
      if offset == 0xEE2C, let left = commandsLeft, left <= 0 { return card.read(offset) | 1 }
      return card.read(offset)
    }
    func write(_ value: UInt32, _ offset: Int) {
      if offset == 0xEE2C, value & 0x100 != 0 { commandsLeft = nil }
      if offset == 0xEE2C, value & 3 != 0, let left = commandsLeft {
        commandsLeft = left - 1
        if left <= 1 { return }
      }
      card.write(value, offset)
      between()
    }
    func doorbell(_ offset: Int) -> Doorbell { card.doorbell(offset) }
  }

  /// The places that people are told, to the queue.
  static func places(_ explanation: Explanation?, _ steering: Steering) -> [Bench.Place] {
    (explanation?.copies ?? []).compactMap { copy in
      switch copy.fate {
      case "host": .host
      case "delivered": .vm(steering.number(of: copy.vm!), queue: copy.queue ?? -1)
      default: nil
      }
    }.sorted()
  }

  /// Whether a card's places are what a verdict says.
  static func agrees(_ verdict: Verdict, _ places: [Bench.Place], _ steering: Steering) -> Bool {
    var rest = places
    var open: [Int] = []
    for copy in verdict.copies {
      switch copy.fate {
      case .drop, .unclaimed: continue
      case .host:
        guard let index = rest.firstIndex(of: .host) else { return false }
        rest.remove(at: index)
      case .deliver(let vm, let queue?):
        guard let index = rest.firstIndex(of: .vm(vm, queue: queue)) else { return false }
        rest.remove(at: index)
      case .deliver(let vm, nil): open.append(vm)
      }
    }
    for vm in open {
      let index = rest.firstIndex {
        guard case .vm(let number, let queue) = $0 else { return false }
        return number == vm && queue < steering.receivers[vm].queueCount
      }
      guard let index else { return false }
      rest.remove(at: index)
    }
    return rest.isEmpty
  }

  static let decisions = ProcessInfo.processInfo.environment["SLUICE_STEERING_DECISIONS"].flatMap { Int($0) } ?? 30_000

  @Test func `card model, reference classifier and index agree on random rules and frames`() throws {
    let start = ProcessInfo.processInfo.environment["SLUICE_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 0 ... .max)
    print("SLUICE_SEED=\(start)")
    var generator = SteeringGenerator(seed: Seed(start))
    var (decided, sets, refused) = (0, 0, [RuleError.Code: Int]())
    var used = (addresses: 0, vlans: 0, types: 0, syn: 0, tuples: 0, flows4: 0, flows6: 0, replicated: 0, nowhere: 0)
    while decided < Self.decisions {
      let receivers = generator.receivers()
      let rules = generator.rules(for: receivers)
      let program: CardProgram
      do throws(RuleError) { program = try CardProgram(Steering(rules, for: receivers), for: .intel82599) } catch {
        refused[error.code, default: 0] += 1
        #expect(!"\(error)".contains("defect"), "SLUICE_SEED=\(start) \(error) \(rules.map(\.text))")
        continue
      }
      sets += 1
      let tables = try #require(program.tables)
      used.addresses += tables.addresses.count
      used.vlans += tables.vlans.count
      used.types += tables.etherTypes.count
      used.syn += tables.syn == nil ? 0 : 1
      used.tuples += tables.fiveTuples.count
      used.flows4 += tables.exactFlows.count { $0.version == .v4 }
      used.flows6 += tables.exactFlows.count { $0.version == .v6 }
      let bench = try Bench(program.steering)
      try bench.device.apply(tables)
      let state = bench.device.readSteering(bench.plan)
      for pool in receivers.indices { #expect(throws: Never.self, "SLUICE_SEED=\(start)") { try Exclusivity(program).check(pool: pool, in: state) } }
      let (classifier, index) = (Classifier(program.steering), RuleIndex(program.steering))
      for _ in 0..<200 {
        let frame = generator.frame()
        let verdict = classifier.verdict(on: frame.span)
        #expect(index.verdict(on: frame.span) == verdict, "SLUICE_SEED=\(start) \(frame)")
        let explanation = Explanation(frame.span, by: program)
        #expect(explanation?.agrees ?? verdict.copies.isEmpty, "SLUICE_SEED=\(start) \(frame)")
        let places = try #require(bench.receive(frame), "SLUICE_SEED=\(start)")
        if places.count > 1 { used.replicated += 1 }
        if places.isEmpty { used.nowhere += 1 }
        decided += 1
        #expect(Self.places(explanation, program.steering) == places.sorted(), "SLUICE_SEED=\(start) \(frame) \(program.steering.rules.map(\.text)) \(receivers)")
        if !Self.agrees(verdict, places, program.steering) {
          Issue.record(
            "SLUICE_SEED=\(start): \(verdict) but the card \(places)\n\(program.steering.rules.map(\.text).joined(separator: "\n"))\n\(receivers)\n\(frame)\n\(tables)")
          return
        }
      }
    }
    print("\(decided) decisions over \(sets) sets of rules; refused: \(refused.map { "\($0.key.rawValue) \($0.value)" }.sorted()); \(used)")
    #expect(used.addresses > 0 && used.vlans > 0 && used.tuples > 0 && used.flows4 > 0 && used.flows6 > 0)
    // One set in ninety has the first of these, one in twenty the second.
    if sets >= 2000 { #expect(used.types > 0 && used.syn > 0) }
    #expect(used.replicated > 0)
  }

  /// From rules to rules on a card that runs: whatever was before, afterwards it does what the new ones say.
  @Test func `a change from any rules to any others leaves what the others say`() throws {
    let start = ProcessInfo.processInfo.environment["SLUICE_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 0 ... .max)
    print("SLUICE_SEED=\(start)")
    var generator = SteeringGenerator(seed: Seed(start))
    for _ in 0..<15 {
      let receivers = generator.receivers()
      let bench = try Bench(Steering([], for: receivers))
      var changes = 0
      while changes < 12 {
        guard let program = try? CardProgram(Steering(generator.rules(for: receivers), for: receivers), for: .intel82599) else { continue }
        changes += 1
        let tables = try #require(program.tables)
        try bench.device.apply(tables)
        let state = bench.device.readSteering(bench.plan)
        #expect(state.exactFlowCount == tables.exactFlows.count && state.tables.fiveTuples.count == tables.fiveTuples.count, "SLUICE_SEED=\(start)")
        #expect(state.tables.addresses.count == tables.addresses.count && state.tables.vlans.count == (tables.filtersVLANs ? tables.vlans.count : 0), "SLUICE_SEED=\(start)")
        let classifier = Classifier(program.steering)
        for _ in 0..<60 {
          let frame = generator.frame()
          let places = try #require(bench.receive(frame))
          guard Self.agrees(classifier.verdict(on: frame.span), places, program.steering) else {
            Issue.record("SLUICE_SEED=\(start): change \(changes): \(places)\n\(program.steering.rules.map(\.text).joined(separator: "\n"))\n\(frame)\n\(tables)")
            return
          }
        }
      }
    }
  }

  /// Frames of a trace; nil: it is none of Ethernet, or cannot be read.
  private static func frames(of path: String, most: Int) -> [[UInt8]]? {
    guard var reader = try? CaptureReader(path: path) else { return nil }
    var frames: [[UInt8]] = []
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: CaptureReader.largestFrame, alignment: 16)
    defer { unsafe buffer.deallocate() }
    while frames.count < most, let frame = try? unsafe reader.next(into: buffer) {
      if (14...9000).contains(frame.capturedByteCount) { frames.append(unsafe Array(buffer[..<frame.capturedByteCount])) }
    }
    return frames
  }

  @Test func `they agree on every trace that there is`() throws {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    // Captures of others lie beside the project, where they are.
    let folders = [root.appendingPathComponent("Traces"), root.deletingLastPathComponent().appendingPathComponent("shared/traces")]
    var paths: [String] = []
    for folder in folders {
      let names = FileManager.default.enumerator(atPath: folder.path)?.compactMap { $0 as? String } ?? []
      paths += names.filter { $0.contains("cap") }.sorted().map { folder.path + "/" + $0 }
    }
    let start = ProcessInfo.processInfo.environment["SLUICE_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 0 ... .max)
    print("SLUICE_SEED=\(start)")
    let most = ProcessInfo.processInfo.environment["SLUICE_STEERING_FRAMES"].flatMap { Int($0) } ?? 40
    let sets = ProcessInfo.processInfo.environment["SLUICE_STEERING_SETS"].flatMap { Int($0) } ?? 2
    var (traces, decisions) = (0, 0)
    for (number, path) in paths.enumerated() {
      guard let frames = Self.frames(of: path, most: most), !frames.isEmpty else { continue }
      traces += 1
      var generator = SteeringGenerator(seed: Seed(start &+ UInt64(number)), meeting: frames)
      var done = 0
      while done < sets {
        let receivers = generator.receivers()
        guard let program = try? CardProgram(Steering(generator.rules(for: receivers), for: receivers), for: .intel82599) else { continue }
        done += 1
        let bench = try Bench(program.steering)
        try bench.device.apply(try #require(program.tables))
        let (classifier, index) = (Classifier(program.steering), RuleIndex(program.steering))
        for frame in frames {
          let verdict = classifier.verdict(on: frame.span)
          let places = try #require(bench.receive(frame))
          decisions += 1
          let isSame = Self.agrees(verdict, places, program.steering) && index.verdict(on: frame.span) == verdict
            && Explanation(frame.span, by: program)?.agrees == true && Self.places(Explanation(frame.span, by: program), program.steering) == places.sorted()
          guard isSame else {
            Issue.record("SLUICE_SEED=\(start): \(path): \(verdict) but the card \(places)\n\(program.steering.rules.map(\.text).joined(separator: "\n"))\n\(frame)")
            return
          }
        }
      }
    }
    print("\(decisions) decisions on \(traces) traces")
    #expect(traces >= 6)
  }
}
