internal import GuestMemory
internal import Linux
internal import Virtio

// Rings: what makes one run, and what stops it. vhost-user, "Ring states".
extension Backend {
  /// The ring that a message names.
  private func index(_ index: UInt32, _ request: Request) throws(MessageError) -> Int {
    guard index < UInt32(rings.count) else { throw .noSuchRing(request, index, count: rings.count) }
    return Int(index)
  }

  var isPacked: Bool { features?.contains(.ringPacked) == true }
  var anyRuns: Bool { rings.contains(where: \.isRunning) }

  // MARK: What a front-end says of a ring

  func setSize(_ state: VringState) throws(MessageError) {
    let n = try index(state.index, .setVringNum)
    if let size = rings[n].size, size == Int(state.number) { return }
    guard !rings[n].isRunning else { throw .ringRuns(.setVringNum, ring: n) }
    rings[n].size = nil
    // Whether it must be a power of two is known when features are.
    guard RingPlace.isSize(state.number, isPacked: isPacked || features == nil) else {
      throw .badRing(n, .badSize(state.number))
    }
    guard Int(state.number) <= limits.largestRing else { throw .badRing(n, .aboveLimit(Int(state.number), limit: limits.largestRing)) }
    rings[n].size = Int(state.number)
    startRings(changed: n)
  }

  func setAddress(_ address: VringAddress) throws(MessageError) {
    let n = try index(address.index, .setVringAddr)
    if let running = rings[n].running { return try setAddressOfRunning(n, running, address) }
    rings[n].address = nil
    guard address.flags & ~VringAddress.logFlag == 0 else { throw .badRing(n, .unknownFlags(address.flags)) }
    if let size = rings[n].size, let map, features != nil {
      do throws(RingProblem) { _ = try RingPlace.find(address, size: size, isPacked: isPacked, in: map) } catch {
        throw .badRing(n, error)
      }
    }
    rings[n].address = address
    startRings(changed: n)
  }

  /// Only where its writes are marked may change while it runs. vhost-user, "Migration".
  private func setAddressOfRunning(_ n: Int, _ running: Ring.Running, _ address: VringAddress) throws(MessageError) {
    guard let old = rings[n].address, address.isSamePlace(as: old), address.flags & ~VringAddress.logFlag == 0 else {
      throw .ringRuns(.setVringAddr, ring: n)
    }
    let logAddress: GuestAddress?
    do throws(RingProblem) {
      logAddress = try self.logAddress(address, running.layout, isPacked: running.isPacked)
    } catch { throw .badRing(n, error) }
    rings[n].address = address
    if logAddress != running.logAddress { device.setLogAddress(logAddress, ring: n) }
    rings[n].setLogAddress(logAddress)
  }

  func setBase(_ state: VringState) throws(MessageError) {
    let n = try index(state.index, .setVringBase)
    guard !rings[n].isRunning else { throw .ringRuns(.setVringBase, ring: n) }
    // Who has seen it run knows better than what was written down. Else it may be a front-end that says what it knew
    // when our predecessor died.
    if rings[n].hasRun { device.forgetPlace(ring: n) }
    // Kept also if it is bad: then the ring does not start by another one.
    rings[n].base = state.number
    if let size = rings[n].size, features != nil,
      RingBase(word: state.number, isPacked: isPacked, size: size) == nil
    {
      throw .badRing(n, .badBase(state.number, size: size))
    }
    startRings(changed: n)
  }

  /// GET_VRING_BASE. A ring that does not run keeps its base: a front-end may ask twice. Some senders leave rubbish in
  /// the reserved number.
  func stopForBase(_ state: VringState) throws(MessageError) -> [UInt8] {
    let n = try index(state.index, .getVringBase)
    stop(n, forgettingKick: true)
    rings[n].kick = .notYet
    rings[n].wasRefused = false
    var payload: [UInt8] = []
    payload.put(state.index)
    payload.put(rings[n].base ?? startWord)
    return payload
  }

  /// Of a ring that nobody gave a base.
  private var startWord: UInt32 { isPacked ? RingBase.packedStart.word(isPacked: true) : 0 }

  /// The kick starts the ring: we do not wait until it is raised. See `Readings.md`.
  func setKick(_ ring: VringDescriptor, _ kick: SharedDescriptor?) throws(MessageError) {
    let n = try index(ring.index, .setVringKick)
    stop(n, forgettingKick: false)
    rings[n].kick = kick.map { .descriptor($0) } ?? .polled
    startRings(changed: n)
  }

  func setCall(_ ring: VringDescriptor, _ call: SharedDescriptor?) throws(MessageError) {
    let n = try index(ring.index, .setVringCall)
    rings[n].call = call
    if rings[n].isRunning { device.setCall(call, ring: n) }
  }

  func setError(_ ring: VringDescriptor, _ error: SharedDescriptor?) throws(MessageError) {
    rings[try index(ring.index, .setVringErr)].error = error
  }

  func setEnabled(_ state: VringState) throws(MessageError) {
    let n = try index(state.index, .setVringEnable)
    // It may come before SET_FEATURES, and does.
    if let features, !features.contains(.protocolFeatures) { throw .enableNotNegotiated }
    guard state.number <= 1 else { throw .badEnable(state.number, ring: n) }
    setEnabled(n, state.number == 1)
  }

  func setEnabled(_ n: Int, _ isEnabled: Bool) {
    guard rings[n].isEnabled != isEnabled else { return }
    rings[n].isEnabled = isEnabled
    if rings[n].isRunning { device.setEnabled(isEnabled, ring: n) }
    report(.ringEnabled(n, isEnabled))
  }

  func disableAll() { for n in rings.indices { setEnabled(n, false) } }

  // MARK: Start and stop

  func stop(_ n: Int, forgettingKick: Bool) { stop([n], forgettingKick: forgettingKick) }

  /// Stops those that run, all at once.
  func stop(_ numbers: [Int], forgettingKick: Bool) {
    let running = numbers.filter { rings[$0].isRunning }
    if running.isEmpty { return }
    for (n, base) in zip(running, device.stop(rings: running)) {
      rings[n].didStop(at: base, forgettingKick: forgettingKick)
      report(.ringStopped(n, base: base))
    }
  }

  /// Starts rings again that the device refused, and could run by now.
  public func retryRings() {
    device.beginOperation()
    startRings()
  }

  /// Starts every ring that has all it needs. One that was refused is tried again when something that it depends on
  /// has changed: `n`'s own message, or for all of them memory or features.
  func startRings(changed n: Int? = nil) {
    for other in rings.indices where n == nil || n == other { rings[other].wasRefused = false }
    guard let map, let features else { return }
    for n in rings.indices where !rings[n].isRunning && rings[n].isComplete && !rings[n].wasRefused {
      do throws(RingProblem) { try start(n, map, features) } catch { refuse(n, error) }
    }
    tellConfigChange()
  }

  /// It has all it needs and cannot run.
  func refuse(_ n: Int, _ problem: RingProblem) {
    rings[n].wasRefused = true
    raiseError(of: n)
    report(.ringRefused(n, problem))
  }

  /// Tells the front-end by a ring's error descriptor: at once, so that it finds that before our answer, as long as that is cheap.
  func raiseError(of n: Int) {
    guard let error = rings[n].error else { return }
    if errorsAreDear { return error.descriptor.raiseElsewhere() }
    let start = MonotonicClock.now()
    error.descriptor.raise()
    // An eventfd that a hypervisor waits for takes 1 to 5 µs. One accident costs the front-end nothing but the order.
    errorsAreDear = MonotonicClock.now() - start > Self.dearError
  }
  /// In nanoseconds: see `raiseError`.
  static var dearError: UInt64 { 1_000_000 }

  private func start(_ n: Int, _ map: MemoryMap, _ features: Features) throws(RingProblem) {
    guard let size = rings[n].size, let address = rings[n].address else { return }
    let missing = offer.requiredFeatures.subtracting(features)
    guard missing.isEmpty else { throw .featuresMissing(missing.rawValue) }
    guard RingPlace.isSize(UInt32(size), isPacked: isPacked) else { throw .badSize(UInt32(size)) }
    let layout = try RingPlace.find(address, size: size, isPacked: isPacked, in: map)
    let word = rings[n].base ?? startWord
    guard let base = RingBase(word: word, isPacked: isPacked, size: size) else { throw .badBase(word, size: size) }
    let logAddress = try logAddress(address, layout, isPacked: isPacked)
    let kick: SharedDescriptor? = if case .descriptor(let kick) = rings[n].kick { kick } else { nil }
    do {
      try device.start(
        RingSetup(
          index: n, layout: layout, features: features.subtracting(.ofTheProtocol), base: base, kick: kick,
          call: rings[n].call, isEnabled: rings[n].isEnabled, logAddress: logAddress,
          record: inflight?.record(ring: n, size: size)))
    } catch { throw .device(error) }
    rings[n].didStart(Ring.Running(isPacked: isPacked, layout: layout, logAddress: logAddress))
    report(.ringStarted(n, size: size, isPacked: isPacked, base: base, isEnabled: rings[n].isEnabled))
  }

  /// Where writes to the used ring are marked, or to a packed ring's descriptors; nil if that was not asked for.
  ///
  /// A packed ring's are marked where the guest has them: see `Readings.md`.
  func logAddress(
    _ address: VringAddress, _ layout: RingLayout, isPacked: Bool
  ) throws(RingProblem) -> GuestAddress? {
    guard address.logsUsedRing else { return nil }
    let place = isPacked ? layout.descriptorArea : address.log
    let byteCount = isPacked ? 16 * layout.size : 6 + 8 * layout.size
    let last = place.rawValue.addingReportingOverflow(UInt64(byteCount - 1))
    let isPastLog = log.map { last.partialValue / DirtyLog.pageByteCount / 8 >= UInt64($0.byteCount) } ?? false
    guard !last.overflow, !isPastLog else { throw .outsideLog(place, byteCount: byteCount) }
    return place
  }

  /// A ring that the device found to be broken: it is stopped, and the front-end's error descriptor raised. It starts
  /// again when the front-end sets it up anew.
  public func fault(ring n: Int, _ reason: RingRefusal) {
    guard rings.indices.contains(n), rings[n].isRunning else { return }
    device.beginOperation()
    stop(n, forgettingKick: false)
    refuse(n, .device(reason))
    if let failure = device.takeFailure() { disconnect(.device(failure)) }
  }
}
