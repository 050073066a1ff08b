internal import Bus
internal import FlowSteering
internal import FlowTables
internal import Linux
internal import Replay
internal import Simulation
internal import VhostUser
internal import Virtio

/// A back-end that runs: one card, the workers that move frames, and a session for each VM's socket.
///
/// `init` opens everything, `run` is the control thread until `stop`. Requests of other threads are executed by the control
/// thread, between two of its own pieces of work. What workers count is read while they count: each figure is one load, and
/// sums of several may be of different moments. Safe for these reasons.
public final class Service: BackendService, @unchecked Sendable {
  public static let version = "0.1.0"
  private let configuration: Configuration
  private let log: @Sendable (LogEvent) -> Void
  private let loop: ControlLoop
  let host: CardHost
  private let store: RuleStore?
  private var hostPort: HostPort?
  let workers: [WorkerThread]
  /// By VM: its part of its worker's time.
  private let shares: [VMShare]
  private var threads: [ThreadBox] = []
  private var sessions: [Session] = []
  private var injection: Injection?
  private let startTime = MonotonicClock.now()
  private var faultsSeen: UInt64 = 0
  /// When a card that is away is looked for again: the monotonic clock.
  private var nextCardLook: UInt64 = 0

  /// Sets everything up, sockets too; nothing is answered before `run`.
  ///
  /// - Parameter log: called from several threads.
  public convenience init(_ configuration: Configuration, log: @escaping @Sendable (LogEvent) -> Void) throws(ServiceError) {
    try self.init(configuration, registers: { $0 }, log: log)
  }

  /// - Parameter registers: the registers that a model's driver uses, given the model's.
  init(
    _ configuration: Configuration, registers: @escaping (any RegisterFile) -> any RegisterFile, log: @escaping @Sendable (LogEvent) -> Void
  ) throws(ServiceError) {
    do throws(ConfigurationError) { try configuration.check() } catch { throw .configuration(error) }
    self.configuration = configuration
    self.log = log
    try Self.prepare(configuration)
    loop = try Self.onMachine { () throws(SystemError) in try ControlLoop() }
    let store = configuration.stateDirectory.map { RuleStore(directory: $0, configured: configuration.rules) }
    self.store = store
    let kept = try store?.load()
    if let kept, kept != configuration.rules {
      log(LogEvent(.notice, "rules are as they were when the back-end last ran", ["rules": String(kept.count), "file": store?.path ?? ""]))
    }
    do throws(ServiceError) { host = try CardHost(configuration, rules: kept ?? configuration.rules, registers: registers, log: log) } catch {
      // Configured rules were checked; kept ones may name what is there no more.
      guard let kept, let store, kept != configuration.rules, case .rule(let reason) = error else { throw error }
      throw .state("\(store.path), the rules as they were when the back-end last ran: \(reason); remove the file, and the configured rules count")
    }
    (workers, shares) = try Self.makeWorkers(configuration, host: host, loop: loop)
    try host.card.beginInterrupts()
    hostPort = try host.openHostPort(worker: 0)
    try startWorkers()
    try addHostPort()
    for (number, vm) in configuration.vms.enumerated() { sessions.append(try makeSession(number, vm)) }
    listenToWorkers()
    host.onLoss = { [weak self] in self?.attendCard() }
    for session in sessions { try session.open() }
  }

  /// Descriptors of the process's own: sockets and files of the program, its control socket's connections, the card's.
  private static let ownDescriptors = 512

  /// What a stranger could take away later is taken now, before any socket is open.
  private static func prepare(_ configuration: Configuration) throws(ServiceError) {
    do { try ProcessLimits.prepareNotifications() } catch {
      throw .machine(
        "guests cannot be notified without an AIO context (\(error)): all of fs.aio-max-nr is taken, or AIO is not allowed; raise it: sysctl -w fs.aio-max-nr=1048576, and allow the system calls io_setup, io_submit and io_getevents"
      )
    }
    let known = try onMachine { () throws(SystemError) in try EventDescriptor().descriptor.kind() }
    guard known == .event else { throw .machine("/proc/self/fd does not say what a descriptor is: mount /proc; front-ends' descriptors are recognised by it") }
    var limits = Limits()
    limits.mostKeptFiles = GuestDevice.keptFiles
    let needed = configuration.vms.reduce(ownDescriptors) { $0 + limits.mostDescriptors(ringCount: 2 * $1.queuePairs) }
    let limit = ProcessLimits.reserveDescriptors(needed)
    guard limit >= needed else {
      throw .machine(
        "\(configuration.vms.count) \(configuration.vms.count == 1 ? "VM" : "VMs") may need \(needed) descriptors, and this process may have \(limit): raise the limit (ulimit -n \(needed), or LimitNOFILE=\(needed) of the unit), or configure fewer VMs"
      )
    }
  }

  private static func onMachine<Result: ~Copyable>(_ body: () throws(SystemError) -> Result) throws(ServiceError) -> Result {
    do { return try body() } catch { throw .machine("\(error)") }
  }

  // MARK: Workers

  private static func makeWorkers(
    _ configuration: Configuration, host: CardHost, loop: ControlLoop
  ) throws(ServiceError) -> ([WorkerThread], [VMShare]) {
    var workers: [WorkerThread] = []
    let rate = TickCounter.measureRate()
    // Away from workers, where they are pinned.
    let others = configuration.workers.processors.isEmpty ? [] : Thread.processors.filter { !configuration.workers.processors.contains($0) }
    let shares = configuration.vms.indices.map { vm in
      VMShare(vm: vm, queues: host.cardQueues(ofPool: vm), notifierProcessor: others.isEmpty ? nil : others[vm % others.count], ticksPerSecond: rate)
    }
    for number in 0..<configuration.workers.count {
      let processor = configuration.workers.processors.isEmpty ? nil : configuration.workers.processors[number]
      if let processor, !Thread.processors.contains(processor) {
        throw .configuration(
          ConfigurationError("workers.cpus", "this process may not run on processor \(processor); it may on \(Thread.processors)"))
      }
      let settings = configuration.workers
      let vector = try host.interrupt(number)
      workers.append(
        try onMachine { () throws(SystemError) in
          try WorkerThread(
            number: number, processor: processor, spinMicroseconds: settings.spinMicroseconds, vector: vector, host: host, shares: shares,
            ticksPerSecond: rate)
        })
    }
    for worker in workers { worker.join(workers) }
    return (workers, shares)
  }

  private func startWorkers() throws(ServiceError) {
    for worker in workers {
      threads.append(
        ThreadBox(
          try Self.onMachine { () throws(SystemError) in try Thread(name: "worker\(worker.number)") { worker.run() } }))
    }
  }

  /// Has the first worker move the host port's frames.
  private func addHostPort() throws(ServiceError) {
    guard let hostPort else { return }
    try Self.onMachine { () throws(SystemError) in try workers[0].watch(hostPort) }
    workers[0].perform { $0.add(hostPort) }
  }

  /// A path that stops by itself is the control thread's business from then on.
  private func listenToWorkers() {
    let report: @Sendable (Int, Int, UInt64, String) -> Void = { [weak self] number, ring, lane, reason in
      self?.loop.post { [weak self] in
        // One that stopped for the card's sake goes with the card, and comes again with it.
        self?.host.look()
        self?.sessions[number].pathStopped(ring: ring, lane: lane, reason: reason)
      }
    }
    for worker in workers { worker.perform { $0.report = report } }
  }

  // MARK: Sessions

  private func makeSession(_ number: Int, _ vm: Configuration.VM) throws(ServiceError) -> Session {
    var records: RingRecords?
    if vm.offersPacked, let directory = configuration.stateDirectory {
      records = try RingRecords(directory: directory, vm: vm.name, ringCount: 2 * vm.queuePairs)
    } else if vm.offersPacked {
      log(LogEvent(.notice, "packed rings are not offered: without a state directory they could not survive a restart", ["vm": vm.name]))
    }
    let device = GuestDevice(
      number: number, vm: vm, host: host, worker: workers[number % workers.count], records: records, log: log)
    return Session(number: number, vm: vm, offer: Offer(for: vm, packed: records != nil, mtu: configuration.nic.mtu), device: device, loop: loop, log: log)
  }

  // MARK: Running

  public func run() {
    watch()
    loop.run()
    injection?.cancel("the back-end is ending")
    finishInjection()
    for session in sessions { session.close() }
    var mayStopPort = true
    for (worker, thread) in zip(workers, threads) {
      // One that does not answer ends with the process; the NIC is reset before.
      if worker.stop() { thread.join() } else {
        log(LogEvent(.error, "a worker does not answer, and ends with the process", ["worker": "\(worker.number)"]))
        mayStopPort = mayStopPort && worker.number != 0
      }
    }
    threads = []
    for share in shares { share.notifications.stop() }
    if mayStopPort { hostPort?.stop() }
    host.card.shutDown()
    logUnmapFailures()
  }

  public func stop() { loop.post { [loop] in loop.end() } }

  public func reload(_ configuration: Configuration) -> [String] {
    self.configuration == configuration
      ? [] : ["the configuration has changed; VMs, card and workers are as they were until a restart"]
  }

  /// Looks for what nobody tells us: accesses of the card that the IOMMU refused, and memory that a front-end took back.
  private func watch() {
    attendCard()
    logUnmapFailures()
    if let count = host.card.faultCount, count > faultsSeen {
      for (address, text) in host.card.faults(after: faultsSeen) {
        let number = address.flatMap(host.pool)
        log(LogEvent(.error, "the IOMMU refused the card an access", ["vm": number.map { sessions[$0].vm.name } ?? "none", "fault": text]))
        if let number { for ring in sessions[number].rings.indices { sessions[number].pathStopped(ring: ring, reason: text) } }
      }
      faultsSeen = count
    }
    for session in sessions { session.checkMemory() }
    loop.after(milliseconds: 200) { [weak self] in self?.watch() }
  }

  private func logUnmapFailures() {
    for entry in host.unmapLog.takeNew() {
      log(
        LogEvent(
          .error, "memory could not be unmapped from the IOMMU: it stays allocated until the back-end ends, and the card's bus mastering is off",
          [
            "vm": entry.vm.map { sessions[$0].vm.name } ?? "none", "device": entry.device, "address": "\(entry.failure.address)",
            "bytes": "\(entry.failure.byteCount)", "reason": "\(entry.failure.error)",
          ]))
    }
  }

  // MARK: A card that goes, and comes again

  /// For tests, which take the card away.
  func onControlThread(_ body: @escaping @Sendable (Service) -> Void) { loop.post { body(self) } }

  private func attendCard() {
    if host.isAway { return takeCard() }
    guard let loss = host.card.attend() else { return }
    log(LogEvent(.error, "the card was lost; VMs run on without it", ["card": host.card.kind, "reason": "\(loss)"]))
    injection?.cancel("the card was lost")
    finishInjection()
    // One time limit for all of them.
    let deadline = MonotonicClock.now() + WorkerThread.commandLimit
    for session in sessions {
      session.device.beginOperation(until: deadline)
      session.device.releaseCard(cardIsGone: loss.isGone)
    }
    if let hostPort {
      workers[0].unwatch(hostPort)
      // One that the worker may use still is not touched: the card is reset below.
      if workers[0].perform({ $0.removePort() }) != nil { hostPort.stop() }
    }
    hostPort = nil
    for worker in workers { worker.releaseCard() }
    faultsSeen = 0
    host.loseCard()
  }

  private func takeCard() {
    guard MonotonicClock.now() >= nextCardLook else { return }
    // One that is there and does not come up is asked again, and not all the time.
    nextCardLook = MonotonicClock.now() + 1_000_000_000
    guard host.findCard() else { return }
    do throws(ServiceError) {
      for worker in workers { try worker.takeCard() }
      try host.card.beginInterrupts()
      hostPort = try host.openHostPort(worker: 0)
      try addHostPort()
    } catch {
      log(LogEvent(.error, "the card came back, and cannot be used", ["reason": "\(error)"]))
      for worker in workers { worker.releaseCard() }
      return host.loseCard()
    }
    for session in sessions { session.device.takeCard() }
    log(LogEvent(.notice, "the card is back, and VMs have it again", ["card": host.card.kind]))
  }

  // MARK: What others ask

  /// Has something done by the control thread, and its result back.
  private func ask<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async throws(ControlError) -> Result {
    let answer: Result? = await withCheckedContinuation { continuation in
      if !loop.post({ continuation.resume(returning: body()) }) { continuation.resume(returning: nil) }
    }
    guard let answer else { throw .stopping }
    return answer
  }

  public func answers() async -> Bool {
    let answer: Bool? = try? await ask { true }
    return answer ?? false
  }

  public func status() async throws(ControlError) -> StatusReport {
    try await ask { self.makeStatus() }
  }

  private func makeStatus() -> StatusReport {
    StatusReport(
      of: host, workers: workers, sessions: sessions, port: hostPort, version: Self.version,
      uptime: Double(MonotonicClock.now() - startTime) / 1e9, wire: configuration.wire)
  }

  public func rules() async throws(ControlError) -> RulesReport {
    // Thousands of rules take long to write down: not on the control thread.
    let (program, counts) = try await ask { (self.host.program, self.host.ruleCounts()) }
    return RulesReport(program, counts)
  }

  /// Rules are compiled on the caller's thread, for many take long: the control thread only compares what the card has
  /// with what it is to have. If the rules have changed meanwhile, all begins again.
  public func change(_ change: RuleChange) async throws(ControlError) -> RulesReport {
    if let report = try await addOne(change) { return report }
    while true {
      let (old, generation) = try await ask { (self.host.program.steering, self.host.generation) }
      var report: RulesReport
      let program: CardProgram
      do throws(RuleError) {
        program = try host.compile(try change.result(of: old.userRules))
        report = RulesReport(program, after: old.userRules, isDry: change.dry_run == true)
      } catch { throw .rule(error) }
      if report.dry_run { return report }
      let outcome: Swift.Result<(generation: UInt64, seconds: Double)?, RuleError> = try await ask {
        guard self.host.generation == generation else { return .success(nil) }
        do throws(RuleError) {
          let start = MonotonicClock.now()
          try self.apply(program)
          return .success((self.host.generation, Double(MonotonicClock.now() - start) / 1e9))
        } catch { return .failure(error) }
      }
      do throws(RuleError) {
        guard let new = try outcome.get() else { continue }
        report.control_s = new.seconds
        noteChange(report, program.steering.userRules, new.generation)
        return report
      } catch { throw .rule(error) }
    }
  }

  /// On the control thread. If the card refuses, it has its old rules, and so have the checks of what VMs send.
  private func apply(_ program: CardProgram) throws(RuleError) {
    let devices = host.vmsToCheckAnew(for: program).map { sessions[$0].device }
    let rings = devices.map { $0.suspendTransmit() }
    defer { for (device, rings) in zip(devices, rings) { device.resumeTransmit(rings) } }
    try host.apply(program)
  }

  /// One more rule that touches no other: the usual change of a large set, and one that takes no time.
  private func addOne(_ change: RuleChange) async throws(ControlError) -> RulesReport? {
    guard change == RuleChange(add: change.add), let texts = change.add, texts.count == 1 else { return nil }
    let rule: Rule
    do throws(RuleError) { rule = try Rule(parsing: texts[0]) } catch { throw .rule(error) }
    let outcome: Swift.Result<(Rule, CardProgram, UInt64, Double)?, RuleError> = try await ask {
      let start = MonotonicClock.now()
      do throws(RuleError) {
        guard let added = try self.host.add(rule) else { return .success(nil) }
        return .success((added, self.host.program, self.host.generation, Double(MonotonicClock.now() - start) / 1e9))
      } catch { return .failure(error) }
    }
    do throws(RuleError) {
      guard let (added, program, generation, seconds) = try outcome.get() else { return nil }
      var report = RulesReport(program, added: added)
      report.control_s = seconds
      noteChange(report, program.steering.userRules, generation)
      return report
    } catch { throw .rule(error) }
  }

  private func noteChange(_ report: RulesReport, _ rules: [Rule], _ generation: UInt64) {
    log(LogEvent(.notice, "rules were changed", ["added": String(report.added.count), "removed": String(report.removed.count), "rules": String(rules.count)]))
    do throws(SystemError) { try store?.save(rules, generation: generation) } catch {
      log(LogEvent(.error, "rules could not be written down: after a restart they are as before", ["file": store?.path ?? "", "reason": "\(error)"]))
    }
  }

  public func inject(_ request: InjectRequest) async throws(ControlError) -> InjectReport {
    // Here: a long trace takes its time to be read, and the control thread has none.
    let trace = try Injection.open(request)
    let cancellation = Injection.Cancellation()
    let outcome: Swift.Result<InjectReport, ControlError>? = await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let isPosted = loop.post {
          self.begin(request, trace, cancellation) { continuation.resume(returning: $0) }
        }
        if !isPosted { continuation.resume(returning: nil) }
      }
    } onCancel: {
      cancellation.request()
    }
    guard let outcome else { throw .stopping }
    return try outcome.get()
  }

  private func begin(
    _ request: InjectRequest, _ trace: TraceWire, _ cancellation: Injection.Cancellation,
    _ answer: @escaping (Swift.Result<InjectReport, ControlError>) -> Void
  ) {
    if host.isAway { return answer(.failure(.busy("the card is away: it was lost, and is opened again as soon as it can be; try again"))) }
    guard let card = host.card as? SimulatedNetworkCard else {
      return answer(.failure(.badRequest("the card is real: frames come over its wire; inject is for the simulated one")))
    }
    guard injection == nil else { return answer(.failure(.busy("another injection is under way; wait for its end"))) }
    injection = Injection(request, trace, card: card, sessions: sessions, cancellation: cancellation, answer)
    followInjection()
  }

  private func followInjection() {
    guard let injection else { return }
    if injection.isDone { return finishInjection() }
    loop.after(milliseconds: 2) { [weak self] in self?.followInjection() }
  }

  private func finishInjection() {
    guard let finished = injection else { return }
    injection = nil
    finished.finish()
  }

  private final class ThreadBox {
    private var thread: Thread?
    init(_ thread: consuming Thread) { self.thread = consume thread }
    func join() {
      guard let thread = thread.take() else { return }
      thread.join()
    }
  }
}
