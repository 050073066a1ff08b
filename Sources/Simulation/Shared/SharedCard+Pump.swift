internal import Linux

// The pump: what happens at the wire, a burst at a time. One thread runs it.

extension SharedCard {
  /// Puts a source at the end of the wire. Its frames come in the pump's steps, a burst of each source in turn.
  ///
  /// - Parameters:
  ///   - waits: the wire waits while the queue that the next frame is for has no descriptor or does not run, as with
  ///     flow control; so do the frames behind it. Else the card drops, as it does without.
  ///   - patience: nanoseconds after which it waits no longer for a queue, until that has taken a frame again; nil: for
  ///     ever, but see `stopWaiting`.
  ///   - counters: count what came of this source's frames, beside the card's own.
  public func attach(
    _ source: any WireSource, waits: Bool = false, patience: UInt64? = nil, counting counters: TrafficCounters? = nil
  ) {
    lock.withLock { _ in ports.append(WirePort(source, waits: waits, patience: patience, counters: counters)) }
    waker.wake()
  }
  /// When it returns, the card asks the source for nothing more.
  public func detach(_ source: any WireSource) { lock.withLock { _ in ports.removeAll { $0.source === source } } }
  /// Where the wire leads; nil: what is sent is counted and forgotten.
  public func setUplink(_ uplink: (any Uplink)?) { lock.withLock { _ in wire.uplink = uplink } }

  /// The wire does not wait for a queue any more, until that takes a frame.
  public func stopWaiting(forQueue n: Int) { lock.withLock { _ in overrun.set(n, true) } }
  /// The wire waits for a queue again: it is about to run.
  public func resumeWaiting(forQueue n: Int) { lock.withLock { _ in overrun.set(n, false) } }
  /// Queues that the wire waits for now.
  public var heldQueues: [Int] { lock.withLock { _ in ports.compactMap { $0.heldQueue < 0 ? nil : $0.heldQueue } } }

  /// One step: lets time pass, takes up to `budget` frames from each source, and sends up to as many.
  ///
  /// - Returns: frames that moved.
  public func pump(_ budget: Int = 64) -> Int { lock.withLock { _ in step(budget) } }

  /// Puts one frame on the wire now. Answers what became of it; `.held` if `waits` and it was not taken.
  public func receive(_ frame: UnsafeRawBufferPointer, waits: Bool = false) -> Arrival {
    guard let bytes = frame.baseAddress else { return .dropped(.undersize, queue: nil) }
    return lock.withLock { _ in
      followTime()
      defer { tellSleeper() }
      var run = DeliveredRun()
      let arrival = unsafe arrive(WireFrame(bytes: bytes, count: frame.count), waits: waits, nil, &run)
      end(&run, waits: waits, nil)
      return arrival
    }
  }

  private func step(_ budget: Int) -> Int {
    let now = followTime()
    var moved = 0
    for port in ports { moved += receive(from: port, budget, now) }
    wire.begin()
    moved += card.transmit(budget: budget, to: wire)
    tally.setBusFaults(iommu.faultCount)
    return moved
  }

  private func receive(from port: WirePort, _ budget: Int, _ now: UInt64) -> Int {
    // What is looked at for every frame is not looked up for every frame.
    let (source, waits, own, burst) = (port.source, port.waits, port.counters?.writer, burst)
    var count = 0
    while count < budget {
      let offered = source.peek(min(budget - count, WireBurst.capacity), into: burst)
      if offered == 0 { break }
      var (taken, isHeld) = (0, false)
      var run = DeliveredRun()
      while taken < offered {
        if case .held(let queue) = unsafe arrive(burst[taken], waits: waits, own, &run) {
          if count + taken > 0 { port.heldQueue = -1 }
          isHeld = isPatient(port, queue, now)
          if isHeld { break }
          _ = unsafe arrive(burst[taken], waits: false, own, &run)
        }
        taken += 1
      }
      end(&run, waits: waits, own)
      source.consume(taken)
      count += taken
      if isHeld { return count }
    }
    if count > 0 { port.heldQueue = -1 }
    return count
  }

  /// Frames that went into one queue, one after the other: counted together.
  private struct DeliveredRun {
    var queue = 0
    var frames = 0
    var bytes = 0
  }

  @inline(__always) private func arrive(
    _ frame: WireFrame, waits: Bool, _ own: TrafficCounters.Writer?, _ run: inout DeliveredRun
  ) -> Arrival {
    let arrival = unsafe card.receive(frame, flowControl: waits)
    switch arrival {
    case .held: break
    case .delivered(let queue):
      if queue != run.queue { end(&run, waits: waits, own) }
      run = unsafe DeliveredRun(queue: queue, frames: run.frames &+ 1, bytes: run.bytes &+ frame.count)
    default: unsafe count(arrival, frame.count, own)
    }
    return arrival
  }

  @inline(__always) private func end(_ run: inout DeliveredRun, waits: Bool, _ own: TrafficCounters.Writer?) {
    if run.frames > 0 {
      tally.delivered(queue: run.queue, frames: run.frames, bytes: run.bytes)
      if let own { own.delivered(queue: run.queue, frames: run.frames, bytes: run.bytes) }
      if waits, overrun.contains(run.queue) { overrun.set(run.queue, false) }
    }
    run = DeliveredRun()
  }

  @inline(never) private func count(_ arrival: Arrival, _ byteCount: Int, _ own: TrafficCounters.Writer?) {
    tally.received(arrival, byteCount, card.copyRecord)
    if let own { own.received(arrival, byteCount, card.copyRecord) }
  }

  /// Whether the wire goes on waiting for a queue.
  private func isPatient(_ port: WirePort, _ queue: Int, _ now: UInt64) -> Bool {
    if overrun.contains(queue) { return false }
    if port.heldQueue != queue { (port.heldQueue, port.heldSince) = (queue, now) }
    guard let patience = port.patience, now - port.heldSince >= patience else { return true }
    overrun.set(queue, true)
    return false
  }
}

// MARK: sleep

extension SharedCard {
  /// Says that the pump is about to sleep, and looks once more. False: there was something to do.
  ///
  /// After true, wait until one of `descriptors` is readable, or for `sleepLimit`, and call `wakeUp`.
  public func prepareToSleep() -> Bool {
    waker.fallAsleep()
    let moved = lock.withLock { _ in
      let moved = step(1)
      sleepsUntil = card.nextEventTime ?? .max
      return moved
    }
    if moved > 0 { waker.wakeUp() }
    return moved == 0
  }

  /// The pump is awake, for whatever reason.
  public func wakeUp() { waker.wakeUp() }

  /// What a sleeping pump waits for.
  public var descriptors: [CInt] {
    [waker.event.descriptor.number] + lock.withLock { _ in ports.compactMap { $0.source.descriptor } }
  }

  /// How long it may sleep, in nanoseconds: until the card has something to do by itself, a frame is due, or patience
  /// ends. Nil: until it is woken.
  public var sleepLimit: UInt64? {
    lock.withLock { _ in
      let now = followTime()
      var limits = [card.nextEventTime.map { $0 > clock.now ? $0 - clock.now : 0 }]
      for port in ports {
        limits.append(port.source.due.map { $0 > now ? $0 - now : 0 })
        if port.heldQueue >= 0, let patience = port.patience {
          limits.append(port.heldSince + patience > now ? port.heldSince + patience - now : 0)
        }
      }
      return limits.compactMap(\.self).min()
    }
  }

  /// Sleeps until there may be something to do, or one of `others` is readable, at most so long. At once if there is.
  ///
  /// - Parameter limit: nanoseconds.
  public func sleep(orUntil others: [CInt] = [], atMost limit: UInt64 = .max) {
    guard prepareToSleep() else { return }
    let limit = min(limit, sleepLimit ?? .max)
    Readiness.wait(for: descriptors + others, atMost: limit == .max ? nil : limit)
    wakeUp()
  }
}
