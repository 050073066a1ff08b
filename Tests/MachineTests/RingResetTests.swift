import Foundation
import Testing

/// What a driver does to its rings while frames come. A real guest is the judge: its kernel poisons the pages and objects
/// that it frees, and reports what was written to them.
@RigActor @Suite(.needs([.backEnd] + Need.genericGuest)) struct RingResetTests {
  private nonisolated static let rounds = Rig.rounds(4, full: 100)

  @Test(arguments: [false, true])
  func `a driver that resizes its rings under traffic finds nothing written to what it freed`(isPacked: Bool) throws {
    try underTraffic({ $0.isPacked = isPacked }) { machine, round in
      let size = round % 2 == 0 ? 64 : 256
      return try machine.guest.check("rings eth0 \(size) \(size)")
    }
  }

  @Test func `a driver that takes queue pairs in and out of use under traffic finds nothing written to what it freed`() throws {
    try underTraffic({ $0.pairs = 2 }) { machine, round in
      let outcome = try machine.guest.check("rings eth0 channels \(round % 2 + 1)")
      try #require(outcome == "DONE")
      return outcome
    }
  }

  /// Frames to and from a guest that poisons memory, `change` in each round, and after each more frames, all of them whole.
  private func underTraffic(_ port: (inout Port) -> Void, _ change: (Machine, Int) throws -> String) throws {
    try withStage { stage in
      var own = stage.port()
      port(&own)
      let backEnd = try stage.backEnd([own])
      let machine = try stage.machine(for: own) {
        $0.kernel = .generic
        $0.emulator = .backports
        $0.processors = 2
        $0.append = "page_poison=1 slub_debug=FZPU nowatchdog"
      }
      try machine.isUp()
      try machine.guest.bringUp(address: "10.99.1.2/24")
      try machine.guest.check("dmesg | grep -q 'mem auto-init: CONFIG_PAGE_POISONING is on\\|page_poison=1'")
      // Frames of the guest's own, behind everything else that it has to do.
      try machine.guest.check("arp -s 10.99.1.1 02:00:00:00:00:01 && { nice nc -u 10.99.1.1 9 < /dev/zero > /dev/null 2>&1 & }")
      let traffic = try Trace.lasting(folder: stage.folder)
      let sink = try Sink(in: machine.guest, traffic, laps: Trace.endless)
      // Fast enough that each round fills every buffer there is, many times; and so that a guest that is emulated on a busy
      // machine has time left for the rest.
      let injection: any Injection
      if let sluice = backEnd as? SluiceBackEnd {
        injection = try sluice.inject(traffic, laps: Trace.endless, speed: "pps=5000")
      } else {
        injection = try backEnd.inject(traffic, laps: Trace.endless)
      }
      try eventually("traffic") { try sink.soFar().good > 300 }
      var outcomes: [String: Int] = [:]
      for round in 0..<Self.rounds {
        outcomes[try change(machine, round), default: 0] += 1
        let then = try sink.soFar().good
        try eventually("traffic goes on after round \(round)") { try sink.soFar().good > then + 300 }
        // Freed pages are looked at when they are taken again: take them.
        if round % 4 == 3 { try machine.guest.check("dd if=/dev/zero of=/run/fill bs=1M count=80 2> /dev/null; rm /run/fill") }
        let findings = try machine.guest.memoryFindings()
        try #require(findings.isEmpty, "round \(round): \(findings)")
      }
      injection.cancel()
      let tally = try sink.settled()
      print("\(own.isPacked ? "packed" : "split"), \(own.pairs) queue pairs, \(Self.rounds) changes of rings: \(outcomes); \(tally)")
      // With the number of queue pairs a flow's queue changes, and what is in the old one may come behind what is in the new one.
      try #require(own.pairs > 1 ? tally.isWhole : tally.isSound, "\(tally)")
      try #require(try !machine.guest.features().contains("RING_RESET"))
      let findings = try machine.guest.memoryFindings()
      try #require(findings.isEmpty, "\(findings)")
      try backEnd.settle()
    }
  }
}

extension Guest {
  /// What the kernel found written to memory that it had freed, and what came of it.
  fileprivate func memoryFindings() throws -> String {
    let signs = "pagealloc: memory corruption|[Pp]oison overwritten|[Rr]edzone overwritten|BUG|WARNING:|Oops:|protection fault|is not a head|out of range"
    return try run("dmesg | grep -E '\(signs)' | head -20").output
  }
}
