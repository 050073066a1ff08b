import Bus
import Foundation
import Glibc
import Simulation
import Linux
import Testing

@testable import Control

extension Hostile {
  /// Rings that start and stop, queues that do not stop, workers that do not answer: none of it costs another VM anything.
  @Suite(.serialized) struct RingLives {
    /// Registers that count what is read of them, by the name of the thread that reads.
    final class CountingRegisters: RegisterFile, @unchecked Sendable {
      private let base: any RegisterFile
      private let reads = Mutex<[UInt64: [Int: Int]]>([:])
      private let names = Mutex<[UInt64: String]>([:])
      init(_ base: any RegisterFile) { self.base = base }
      func read(_ offset: Int) -> UInt32 {
        let thread = UInt64(pthread_self())
        reads.withLock { reads in
          if names.withLock({ $0[thread] == nil }) {
            let name = (try? String(contentsOfFile: "/proc/thread-self/comm", encoding: .utf8)) ?? ""
            names.withLock { $0[thread] = name }
          }
          reads[thread, default: [:]][offset, default: 0] += 1
        }
        return base.read(offset)
      }
      func write(_ value: UInt32, _ offset: Int) { base.write(value, offset) }
      func doorbell(_ offset: Int) -> Doorbell { base.doorbell(offset) }
      /// What workers have read, by the register's offset.
      var byWorkers: [Int: Int] {
        let workers = names.withLock { $0.filter { $0.value.hasPrefix("worker") } }
        return reads.withLock { reads in
          reads.filter { workers[$0.key] != nil }.values.reduce(into: [:]) { sum, part in sum.merge(part) { $0 + $1 } }
        }
      }
      var all: Int { reads.withLock { $0.values.reduce(0) { $0 + $1.values.reduce(0, +) } } }
    }
    final class Box: @unchecked Sendable { var registers: CountingRegisters? }

    /// Whether a register is one by which a queue is polled while it stops: 82599 datasheet 8.2.3.8, 8.2.3.9.
    private func isOfStopping(_ offset: Int) -> Bool {
      let isReceive = (0x1000..<0x2000).contains(offset) || (0xD000..<0xE000).contains(offset)
      let isTransmit = (0x6000..<0x8000).contains(offset)
      return isReceive && offset & 0x3F == 0x28 || isTransmit && [0x10, 0x18, 0x28].contains(offset & 0x3F)
    }
    private func mapCalls(_ stage: Stage) async -> Int {
      let model = await stage.model
      return model?.withModels { _, iommu, _ in iommu.mapCount } ?? -1
    }

    @Test func `a front-end that toggles its rings costs another VM no frame, and a worker no register and no mapping`() async throws {
      let box = Box()
      let stage = try Stage(registers: {
        let registers = CountingRegisters($0)
        box.registers = registers
        return registers
      })
      try await withStage(stage) { stage in
        let registers = try #require(box.registers)
        let attacker = try stage.guest(.running)
        // Both VMs' rings were started: hundreds of registers were read, and none by a worker.
        #expect(registers.all > 600)
        #expect(registers.byWorkers.isEmpty, "read by workers: \(registers.byWorkers)")
        let maps = await mapCalls(stage)

        let wanted = stage.frames(800, to: 0)
        let isDone = Mutex(false)
        async let injected = {
          let report = try await stage.inject(wanted)
          isDone.withLock { $0 = true }
          return report
        }()
        var found: [[UInt8]] = []
        var toggles = 0
        while !isDone.withLock({ $0 }) {
          var messages: [UInt8] = []
          for n in 0..<64 {
            messages += FrontEnd.header(Ask.setVringEnable, Flag.version, 8) + littleEndian(UInt32(0), UInt32(n % 2))
          }
          #expect(attacker.front.send(messages))
          toggles += 64
          // Only so many are under way: the test waits for the last of them.
          try attacker.front.must(Ask.setVringEnable, littleEndian(UInt32(0), UInt32(1)))
          found += stage.victim.harvest()
          stage.victim.replenish()
        }
        let report = try await injected
        found += stage.victim.harvest()
        stage.victim.replenish()
        #expect(found == wanted, "the victim got \(found.count) frames of \(wanted.count) beside \(toggles) toggles")
        #expect(report.frames.sent == 800 && report.frames.delivered == 800 && report.frames.dropped == 0, "\(report)")
        let others = registers.byWorkers.filter { !isOfStopping($0.key) }
        #expect(others.isEmpty, "read by workers: \(others)")
        #expect(await mapCalls(stage) == maps, "something was mapped for a ring that started again")
        let status = await stage.status(1)
        #expect(status.connection == "connected" && status.rings.allSatisfy { $0.state == "running" } && status.containments == 0)
        #expect(Int(status.quiesces.count) >= toggles / 2)
        try await stage.victimGoesOn("after \(toggles) toggles")
      }
    }

    @Test func `a worker that does not answer ends the session that asked, and no other`() async throws {
      // VM 1 is on the second worker, VMs 0 and 2 on the first.
      try await withStage(try Stage(attackers: 2) { $0.workers.count = 2 }) { stage in
        let (attacker, other) = (try stage.guest(.running), try Guest(stage, vm: 2))
        try other.start()
        other.replenish()
        let gate = Gate()
        let mark = stage.mark
        await stage.onControlThread { _ = $0.workers[1].send { _ in gate.hold() } }
        gate.waitUntilHeld()
        // The base of a ring that may still run is not given: the connection ends instead.
        attacker.front.message(Ask.getVringBase, littleEndian(UInt32(0), UInt32(0)))
        let value = try other.front.order(Ask.setVringEnable, littleEndian(UInt32(0), UInt32(0)))
        #expect(value == 0, "another VM's message was not answered")
        try other.front.must(Ask.setVringEnable, littleEndian(UInt32(0), UInt32(1)))
        #expect(attacker.front.isHungUp())
        #expect(eventually { stage.disconnections(1) == 1 })
        #expect(stage.hasSaid("a worker does not answer", since: mark, vm: 1))
        #expect(stage.disconnections(0) == 0 && stage.disconnections(2) == 0)
        // The worker may use the VM's memory still: it is held, and mapped for the NIC too.
        #expect(Holders.mappings(attacker.ram.name + "-") == 2 * attacker.ram.regions.count)
        var status = await stage.status(1)
        #expect(status.contained?.contains("worker 1 does not answer") == true && status.containments == 1)
        let refused = try FrontEnd(path: stage.socketPath(1))
        #expect(refused.isHungUp())
        #expect(eventually { stage.hasSaid("front-end rejected", since: mark, vm: 1) })
        // All others go on, new connections and status included.
        try await stage.victimGoesOn("beside a worker that stands still", between: stage.frames(4, to: 2))

        gate.open()
        #expect(eventually { stage.hasSaid("the worker answers again", since: mark, vm: 1) })
        try await stage.isGone(attacker, "after its worker answered")
        status = await stage.status(1)
        #expect(status.contained == nil && status.containments == 1)
        let next = try stage.guest(.running)
        let frames = stage.frames(4, to: 1)
        try await stage.inject(frames)
        #expect(next.harvest() == frames)
      }
    }

    /// What asks for a ring's end, and how the front-end learns that it was not to be had.
    enum Stop: CaseIterable { case disableWithReply, disable, getBase, hangUp }

    @Test(arguments: Stop.allCases)
    func `a VM whose queue does not stop is contained until the NIC was reset, and runs again then`(stop: Stop) async throws {
      try await withStage(try Stage()) { stage in
        let guest = try stage.guest(.running)
        let model = try #require(await stage.model)
        let mark = stage.mark
        model.withModels { card, _, _ in
          (card.faults.neverDisables, card.faults.deliversWhileDisabling) = (true, true)
        }
        let ring0 = littleEndian(UInt32(0), UInt32(0))
        switch stop {
        case .disableWithReply: #expect(try guest.front.order(Ask.setVringEnable, ring0) != 0)
        case .disable:
          guest.front.message(Ask.setVringEnable, ring0)
          #expect(guest.front.isHungUp())
        case .getBase:
          guest.front.message(Ask.getVringBase, ring0)
          #expect(guest.front.isHungUp())
        case .hangUp: guest.front.close()
        }
        #expect(eventually { stage.hasSaid("queue did not quiesce", since: mark, vm: 1) })
        let event = try #require(stage.events(since: mark, vm: 1).first { $0.message.hasPrefix("queue did not quiesce") })
        #expect(event.level == .error && event["ring"] == "0" && event["reason"]?.contains("RXDCTL") == true)
        var status = await stage.status(1)
        #expect(status.contained?.contains("until the NIC is reset") == true && status.containments == 1)
        #expect(await eventually { await stage.status(1).rings.allSatisfy { $0.state != "running" } })

        // The queue goes on, and nothing of it reaches the guest's memory.
        guest.ram.freeze()
        try await stage.victimGoesOn("beside a contained VM", between: stage.frames(16, to: 1))
        #expect(guest.audit(strangers: []) == [])
        // No ring starts, and nothing is mapped.
        if stop == .disableWithReply {
          #expect(try guest.front.order(Ask.setMemTable, littleEndian(UInt32(1), UInt32(0)) + guest.ram.regions[0].description, fds: [guest.ram.regions[0].file.number]) != 0)
        }
        let second = try? FrontEnd(path: stage.socketPath(1))
        if stop != .disableWithReply {
          #expect(second?.isHungUp() == true)
          #expect(eventually { stage.hasSaid("front-end rejected", since: mark, vm: 1) })
        }
        second?.close()

        // Another resets the NIC: it is taken again, and the VM is served again.
        model.withModels { card, _, _ in
          (card.faults.neverDisables, card.faults.deliversWhileDisabling) = (false, false)
          card.write(1 << 26, 0)
        }
        #expect(eventually(within: 10) { stage.hasSaid("the VM is served again", since: mark, vm: 1) })
        status = await stage.status(1)
        #expect(status.contained == nil && status.containments == 1)
        try await stage.victimGoesOn("after the NIC was reset")
        guest.front.close()
        #expect(eventually { stage.disconnections(1) == 1 })
        let next = try stage.guest(.running)
        let frames = stage.frames(4, to: 1)
        try await stage.inject(frames)
        #expect(next.harvest() == frames)
        next.replenish()
        try await stage.isGone(next, "after it ran again")
      }
    }

    @Test func `a VM that was contained and kept its connection runs again by itself after the NIC was reset`() async throws {
      try await withStage(try Stage()) { stage in
        let guest = try stage.guest(.running)
        let model = try #require(await stage.model)
        let mark = stage.mark
        model.withModels { card, _, _ in card.faults.neverDisables = true }
        #expect(try guest.front.order(Ask.setVringEnable, littleEndian(UInt32(0), UInt32(0))) != 0)
        #expect(await eventually { await stage.status(1).rings.allSatisfy { $0.state == "failed" } })
        model.withModels { card, _, _ in
          card.faults.neverDisables = false
          card.write(1 << 26, 0)
        }
        #expect(eventually(within: 10) { stage.hasSaid("the VM is served again", since: mark, vm: 1) })
        try guest.front.must(Ask.setVringEnable, littleEndian(UInt32(0), UInt32(1)))
        #expect(await eventually { await stage.status(1).rings.allSatisfy { $0.state == "running" } })
        let frames = stage.frames(4, to: 1)
        try await stage.inject(frames)
        #expect(guest.harvest() == frames)
        guest.replenish()
        try await stage.victimGoesOn("after the NIC was reset")
      }
    }
  }
}

/// Holds a thread until it is opened.
private final class Gate: Sendable {
  private let held = DispatchSemaphore(value: 0), opened = DispatchSemaphore(value: 0)
  func hold() {
    held.signal()
    opened.wait()
  }
  func waitUntilHeld() { held.wait() }
  func open() { opened.signal() }
}

extension Stage {
  func onControlThread<Result: Sendable>(_ body: @escaping @Sendable (Service) -> Result) async -> Result {
    await withCheckedContinuation { continuation in
      service.onControlThread { continuation.resume(returning: body($0)) }
    }
  }
  var model: SharedCard? {
    get async { await onControlThread { $0.host.model } }
  }
}
