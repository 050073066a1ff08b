import Support
import Testing
import VhostUser
import Virtio

/// How much a front-end may have others wait for it: tokens for messages, and time.
@Suite struct MessageBudgetTests {
  private let second: UInt64 = 1_000_000_000
  private let start: UInt64 = 5_000_000_000

  // MARK: Arithmetic

  @Test func `a full bucket has a burst of tokens, and the one after them is waited for`() {
    var budget = MessageBudget()
    for n in 1..<MessageBudget.burst {
      budget.take(1, at: start)
      let pause = budget.pause(at: start)
      #expect(pause == nil, "after \(n)")
    }
    budget.take(1, at: start)
    let pause = budget.pause(at: start)
    // Until there are `restart` tokens, of which one comes in every millisecond.
    #expect(pause == start + MessageBudget.restart * second / MessageBudget.perSecond)
  }

  @Test func `tokens come back at their rate, and never more than a burst`() {
    var budget = MessageBudget()
    budget.take(MessageBudget.burst, at: start)
    let until = start + MessageBudget.restart * second / MessageBudget.perSecond
    var pauses = [budget.pause(at: until - 1), budget.pause(at: until)]
    #expect(pauses == [until, nil])
    // A long time later it is full, and not fuller.
    let later = until + 1000 * second
    budget.take(MessageBudget.burst - 1, at: later)
    pauses = [budget.pause(at: later)]
    budget.take(1, at: later)
    pauses.append(budget.pause(at: later))
    #expect(pauses[0] == nil && pauses[1] != nil)
  }

  @Test func `no pause is longer than the dearest message is worth, whatever was taken`() throws {
    var budget = MessageBudget()
    for _ in 0..<1_000_000 { budget.take(MessageBudget.mostPerMessage, at: start) }
    let until = try #require([budget.pause(at: start)].first ?? nil)
    #expect(until == start + (MessageBudget.mostPerMessage + MessageBudget.restart) * second / MessageBudget.perSecond)
  }

  @Test func `over a long time a flood gets its rate and no more`() {
    var budget = MessageBudget()
    var (now, taken) = (start, UInt64(0))
    while now < start + 60 * second {
      if let until = budget.pause(at: now) { now = until } else {
        budget.take(1, at: now)
        taken += 1
        now += 10_000
      }
    }
    let most = MessageBudget.burst + 60 * MessageBudget.perSecond + MessageBudget.restart
    #expect(taken <= most && taken >= most - 2 * MessageBudget.restart, "\(taken) of \(most)")
  }

  @Test func `work costs by its time, whatever the message, and one message at most so much`() {
    #expect(MessageBudget.cost(tokens: 0, nanoseconds: 99_999) == 0)
    #expect(MessageBudget.cost(tokens: 1, nanoseconds: 99_999) == 1)
    #expect(MessageBudget.cost(tokens: 4, nanoseconds: 5_000_000) == 54)
    #expect(MessageBudget.cost(tokens: 1, nanoseconds: 600 * second) == MessageBudget.mostPerMessage)
  }

  // MARK: A connection

  /// Turns a ring on and off without end; answers how often that was done.
  private func toggles(_ frontend: Frontend, _ count: Int) -> Int {
    let before = frontend.events.count
    for n in 0..<count { frontend.send(ID.enable, state(0, UInt32(n % 2))) }
    return frontend.events[before...].count { if case .ringEnabled = $0 { true } else { false } }
  }

  @Test func `a front-end that toggles a ring without end is read at the rate of its bucket, and loses nothing`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    var done = 0
    // The socket holds what was not read.
    while frontend.backend.pause(now: frontend.now) == nil { done += toggles(frontend, 2) }
    // Each of them costs four.
    #expect(done <= Int(MessageBudget.burst) / 4 && done > Int(MessageBudget.burst) / 4 - 20)
    #expect(toggles(frontend, 10) == 0)
    #expect(frontend.isConnected)
    // When there are tokens again, so many of them are done.
    let until = try #require(frontend.backend.pause(now: frontend.now))
    #expect(until > frontend.now && until < frontend.now + second)
    frontend.now = until
    let before = frontend.events.count
    frontend.turn()
    let after = frontend.events[before...].count { if case .ringEnabled = $0 { true } else { false } }
    #expect(after == Int(MessageBudget.restart) / 4)
    #expect(frontend.disconnection == nil && frontend.refusals.isEmpty)
  }

  @Test func `who connects again finds the bucket as it was left`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    while frontend.backend.pause(now: frontend.now) == nil { _ = toggles(frontend, 2) }
    frontend.backend.disconnect()
    let again = try Frontend(again: frontend)
    #expect(again.ask(ID.getFeatures) == nil)
    again.now = try #require(again.backend.pause(now: again.now))
    again.turn()
    #expect(again.receive()?.id == ID.getFeatures)
  }

  @Test func `a lawful start and stop of every ring, and 509 regions, wait for nothing`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    for _ in 0..<10 {
      for ring in 0..<2 as Range<UInt32> {
        _ = frontend.ask(ID.getBase, state(ring, 0))
        frontend.setUp(ring, guest)
      }
    }
    #expect(frontend.device.running.count == 2)
    #expect(frontend.backend.pause(now: frontend.now) == nil)
    // 509 regions, each told of by 4 queue pairs.
    #expect(509 * 4 < MessageBudget.burst)
  }

  @Test func `a call ends after its time with messages left, and the next goes on`() throws {
    let stopwatch = Frontend.Stopwatch()
    var limits = Limits()
    limits.readableTime = 1_000_000
    let device = RecordingDevice()
    let frontend = try Frontend(limits: limits, device: device, stopwatch: stopwatch)
    let guest = try TestGuest()
    frontend.run(guest)
    device.onEnable = { stopwatch.now += 400_000 }
    for n in 0..<9 { frontend.raw(Frontend.message(ID.enable, state(0, UInt32(n % 2)))) }
    var done: [Int] = []
    for _ in 0..<4 {
      let before = frontend.events.count
      frontend.turn()
      done.append(frontend.events.count - before)
    }
    // The one that is under way when the time is over is finished.
    #expect(done == [3, 3, 3, 0])
  }

  // MARK: Sizes

  @Test func `a ring above its VM's limit is refused by the option's name, and one at the limit runs`() throws {
    var limits = Limits()
    limits.largestRing = 256
    let (frontend, guest) = (try Frontend(limits: limits), try TestGuest())
    frontend.run(guest)
    #expect(frontend.device.running.count == 2)
    #expect(frontend.acknowledged(ID.setNum, state(2, 512)) == 1)
    #expect(frontend.refusals == [.badRing(2, .aboveLimit(512, limit: 256))])
    #expect("\(frontend.refusals[0])" == "ring 2: 512 entries; at most 256 by this VM's ring-size-limit")
    #expect(frontend.acknowledged(ID.setNum, state(2, 256)) == 0)
    #expect(frontend.isConnected)
    #expect(Limits().largestRing == 32768)
  }

  @Test func `memory above its VM's limit is refused by the option's name`() throws {
    var limits = Limits()
    limits.mostGuestBytes = 0x1000
    let (frontend, guest) = (try Frontend(limits: limits), try TestGuest())
    frontend.negotiate()
    #expect(frontend.acknowledged(ID.addRegion, guest.regions[0].single, [guest.low]) == 1)
    let refusal = try #require(frontend.refusals.first)
    #expect("\(refusal)" == "\(guest.regions[0].size) bytes of guest memory; at most 4096 by this VM's memory-limit")
    #expect(Limits().mostGuestBytes == 1 << 40)
  }
}
