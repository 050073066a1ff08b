internal import CLinux
internal import FlowSteering
internal import Linux
internal import Simulation

/// Replays traces through a simulated card and the real driver into guests' memory.
///
///     let replay = try Replay(options)
///     let report = try replay.run { progress in … }
public final class Replay: @unchecked Sendable {
  let options: ReplayOptions
  let vms: [ReplayOptions.VM]
  private let cancelled = SharedWord()

  /// Traces whose frames, all loops together, have at most this many bytes are compared unless told otherwise.
  public static let verifyLimit: Int64 = 1 << 30

  /// - Throws: `usage` if what is asked for does not fit together.
  public init(_ options: ReplayOptions) throws(ReplayError) {
    self.options = options
    vms = try Self.resolve(options)
  }

  /// Ends a run early, from any thread or a signal handler: the run returns its report, marked as interrupted.
  public func cancel() { cancelled.set(1) }
  var isCancelled: Bool { cancelled.value != 0 }

  /// - Parameter progress: called now and then on the calling thread.
  public func run(progress: (ReplayProgress) -> Void = { _ in }) throws(ReplayError) -> ReplayReport {
    let source = try TraceSource.open(options)
    let verifies = options.verify ?? ((source.expectedBytes ?? .max) <= Self.verifyLimit)
    let sinks = try CaptureSinks(options, vms: vms)
    let rig = try Rig(options, vms: vms, hashes: verifies, sinks: sinks.byMachine)
    // A run in simulated time counts in its clock's nanoseconds.
    let unit = options.isDeterministic ? 1 : 1e9 / TickCounter.measureRate()
    let engine = Engine(options: options, source: source, rig: rig, verifies: verifies, nanosecondsPerTick: unit)
    let log = try EventLog(options.eventLog)
    var report: ReplayReport
    if options.isDeterministic {
      var run = DeterministicRun(engine, log: log)
      report = try run.run(until: { self.isCancelled }, progress: progress)
    } else {
      var run = ThreadedRun(engine)
      report = try run.run(until: { self.isCancelled }, progress: progress)
    }
    report.vm_order = vms.map(\.name)
    if report.frames.received == 0 && !report.interrupted && report.trace_error == nil {
      throw .nothingSent("nothing was sent: the replay ended before its first frame was due; give more --duration")
    }
    // What was replayed is worth telling, also where a file for it ran out of room.
    do throws(ReplayError) {
      try sinks.close()
      try log.close()
    } catch { report.output_error = "\(error)" }
    return report
  }

  /// Fills in what was left open, and refuses what cannot be.
  private static func resolve(_ options: ReplayOptions) throws(ReplayError) -> [ReplayOptions.VM] {
    guard !options.files.isEmpty else { throw .usage("no trace given") }
    guard options.ringSize >= 2, options.ringSize <= 32768, options.ringSize & (options.ringSize - 1) == 0 else {
      throw .usage("--ring-size \(options.ringSize): must be a power of two from 2 to 32768")
    }
    guard (68...9710).contains(options.mtu) else {
      throw .usage("--mtu \(options.mtu): must be from 68 to 9710, the most that an 82599 takes")
    }
    if let memory = options.guestMemory, !(1 << 20...16 << 30).contains(memory) {
      throw .usage("--guest-memory \(memory): must be from 1 MiB to 16 GiB")
    }
    guard options.limit.loops > 0 else { throw .usage("--loop \(options.limit.loops): must be at least 1") }
    if options.eventLog != nil && !options.isDeterministic {
      throw .usage("--event-log: only a --deterministic run has a log that another can be compared with")
    }
    var vms = options.vms.isEmpty ? [ReplayOptions.VM(name: "vm0")] : options.vms
    let largest = vms.map(\.queues).max() ?? 1
    guard vms.count <= (largest > 2 ? 29 : 61) else {
      throw .usage("\(vms.count) VMs: an 82599 has 64 pools of 2 queues, or 32 of 4, and the last three are kept")
    }
    var names: Set<String> = []
    var keys: Set<String> = []
    for index in vms.indices {
      let vm = vms[index]
      guard names.insert(vm.name).inserted else { throw .usage("--vm \(vm.name): this name is given twice") }
      guard [1, 2, 4].contains(vm.queues) else {
        throw .usage("--vm \(vm.name),queues=\(vm.queues): a pool of an 82599 has 1, 2 or 4 queues")
      }
      if let vlan = vm.vlan, !(1...4094).contains(vlan) {
        throw .usage("--vm \(vm.name),vlan=\(vlan): must be from 1 to 4094")
      }
      if vms.count > 1 && vm.address == nil && vm.vlan == nil && options.rules.isEmpty {
        vms[index].address = MACAddress.local(index + 1)
      }
      if let address = vms[index].address, address.isGroup {
        throw .usage("--vm \(vm.name),mac=\(address): a multicast address cannot be a VM's own")
      }
      let key = "\(vms[index].address.map(String.init(describing:)) ?? "any") \(vm.vlan.map(String.init) ?? "any")"
      guard keys.insert(key).inserted || vms[index].address == nil && !options.rules.isEmpty else {
        throw .usage("--vm \(vm.name): another VM has the same mac and vlan; a frame can belong to one of them only")
      }
    }
    if vms.count > 1, let vm = vms.first(where: { $0.address == nil && (options.rules.isEmpty || $0.vlan != nil) }) {
      // A pool of the 82599 has no promiscuous mode of its own for unicast frames.
      throw .usage("--vm \(vm.name): with several VMs each needs a mac; a vlan alone does not keep its frames from the others")
    }
    if vms.count == 1, vms[0].address == nil, let vlan = vms[0].vlan {
      // Everything, or what an address and a VLAN select: the card's VLAN filter lets untagged frames pass.
      throw .usage("--vm \(vms[0].name),vlan=\(vlan): a vlan needs a mac with it; to replay one VLAN only give --filter 'vlan \(vlan)'")
    }
    for capture in options.captures where !capture.vm.isEmpty && !names.contains(capture.vm) {
      throw .usage("--write \(capture.vm)=\(capture.path): no VM has this name; there are \(vms.map(\.name).joined(separator: ", "))")
    }
    switch options.pace {
    case .original(let factor): guard factor > 0, factor.isFinite else { throw .usage("--speed x\(factor): must be more than 0") }
    case .framesPerSecond(let rate): guard rate > 0, rate.isFinite else { throw .usage("--speed pps=\(rate): must be more than 0") }
    case .gigabitsPerSecond(let rate): guard rate > 0, rate.isFinite else { throw .usage("--speed gbps=\(rate): must be more than 0") }
    case .top: break
    }
    return vms
  }
}
