import Foundation
import Testing

/// A card that nobody here has written, behind an IOMMU that nobody here has written, by Linux's VFIO: QEMU's 82576 and VT-d,
/// with Sluice inside the machine.
@RigActor @Suite(.needs([.sluice] + Need.backportsGuest)) struct CardTests {
  private static let macs = CardMachine.macs

  /// As `withStage`. QEMU 10.0 has a race between its threads in which it fails an assertion of its own, once in some tens of
  /// times that a card's registers are mapped: then all is begun again.
  private func withCard(_ body: (Stage) throws -> Void) throws {
    for _ in 0..<2 {
      do { return try withStage(body) } catch let error as RigError where error.description.contains("iotlb_to_section: Assertion") {
        print("QEMU failed an assertion of its own; once more")
      }
    }
    try withStage(body)
  }

  @Test func `frames for two VMs arrive in their buffers, each in its own`() throws { try deliver(.backports, "group") }
  @Test(.needs([.kernel(.iommufd)])) func `by iommufd too frames for two VMs arrive in their buffers, each in its own`() throws {
    try deliver(.iommufd, "iommufd")
  }

  @Test func `with pages mapped only while they are lent frames arrive as well, and none stays mapped`() throws {
    try deliver(.backports, "group", protection: "strict")
  }

  private func deliver(_ kernel: Kernel, _ interface: String, protection: String = "static") throws {
    try withCard { stage in
      let machine = try CardMachine(kernel: kernel, folder: stage.place("machine"))
      try machine.start(["a", "b"], more: "--vfio \(interface) --protect \(protection)")
      try #require(try machine.log().contains("interface=\(interface)"))
      let frames = 50_000
      let trace = try Trace(frames: frames, macs: Self.macs, folder: stage.folder)
      let receivers = try ["a", "b"].map { try FrontEnd.receiving($0, in: machine, frames: frames) }
      // What the card is told of by file need not be in the tables of the process.
      let resident = try machine.residentGuestKibibytes()
      print("82576 by \(interface), \(protection): \(resident) KiB of the guests' memory are resident before the first frame")
      let isByFile = try machine.log().contains(#"memory="by file""#)
      if protection == "static" { try #require((resident < 2048) == isByFile) }
      try machine.deliver(trace, to: ["a", "b"])
      for (name, receiver) in zip(["a", "b"], receivers) {
        let tally = try receiver.tally()
        print("82576 by \(interface), \(protection): \(tally)")
        let receive = try machine.receive(name)
        try #require(tally.isWhole(frames), "\(tally); the NIC dropped \(machine.droppedByNIC) for want of descriptors; Sluice: \(receive)")
        try #require((receive["lent"] as? [String: Int])?["frames"] == frames, "not all were lent: \(receive)")
        try #require(receive["dropped_by"] as? [String: Int] == [:], "\(receive)")
      }
      try #require(machine.droppedByNIC == 0, "the sender was faster than the acknowledgements allow")
      let nic = try machine.nic()
      try #require(nic["overruns"] as? Int == 0 && nic["dropped_by"] as? [String: Int] == [:], "\(nic)")
      try machine.settle()
      try eventually("nothing stays mapped") { try machine.nic()["iommu_maps"] as? Int == 0 }
      try machine.stop()
      let log = try machine.log()
      try #require(!log.contains(" error "), "\(log)")
    }
  }

  /// A front-end that stands still has a fixed number of buffers posted.
  @Test func `frames for which a queue has no descriptor are reported as lost, and every other one arrives`() throws {
    try withCard { stage in
      let machine = try CardMachine(folder: stage.place("machine"))
      try machine.start(["a", "b"])
      let frames = 400
      let receiver = try FrontEnd.receiving("a", in: machine, frames: frames)
      // QEMU holds frames back as long as no queue at all has descriptors.
      let other = try FrontEnd.receiving("b", in: machine, frames: 1)
      try machine.buffersArePosted(["a", "b"])
      try receiver.pause()
      for record in try Trace(frames: frames, macs: [Self.macs[0]], folder: stage.folder).records() { machine.wire.send(record.dropFirst(16)) }
      let lost = frames - FrontEnd.bufferCount
      try eventually("\(lost) frames are dropped, not \(machine.droppedByNIC)") { machine.droppedByNIC >= lost }
      try eventually("the NIC's overruns are reported: \((try? machine.nic()) ?? [:])") { try machine.nic()["overruns"] as? Int ?? 0 > 0 }
      try receiver.resume()
      try eventually("the others arrive") { try receiver.soFar() >= frames - lost }
      for frontEnd in [receiver, other] { try frontEnd.interrupt() }
      let (tally, dropped) = (try receiver.tally(), machine.droppedByNIC)
      try #require(tally.isSound && tally.good + dropped == frames && dropped == lost, "the NIC dropped \(dropped): \(tally)")
      try machine.settle()
    }
  }

  /// The physical function is driven by Linux: the other end of the mailbox is its.
  @Test(.needs([.kernel(.iommufd)])) func `a virtual function receives and sends beside the kernel's driver of the physical one`() throws {
    try withCard { stage in
      let machine = try CardMachine(kernel: .iommufd, folder: stage.place("machine"))
      try machine.takeVirtualFunction()
      let mac = Self.macs[1]
      let refusal = try machine.guest.run("cd /run; sluice run --nic vfio:\(machine.card) --vm b,socket=b.sock,packed=off")
      try #require(refusal.status != 0 && refusal.output.contains("one address: give its VM mac="), "\(refusal)")
      try machine.start(["b"])
      let frames = 100_000
      let trace = try Trace(frames: frames, macs: [mac], folder: stage.folder)
      let receiver = try FrontEnd.receiving("b", in: machine, frames: frames)
      try machine.deliver(trace, to: ["b"])
      let tally = try receiver.tally()
      print("82576 VF: \(tally)")
      try #require(tally.isWhole(frames), "\(tally); the NIC dropped \(machine.droppedByNIC) for want of descriptors")
      _ = machine.wire.sent()
      let expected = try Self.sent(3000, by: mac, stage)
      let sender = try FrontEnd("send", "b", in: machine, "02:aa:aa:aa:aa:aa 0 3000")
      try #require(try sender.end().contains("SENT 3000 of 3000"))
      var sent: [Data] = []
      // The kernel's own interface says something now and then.
      let source = expected[0][6..<12]
      try eventually("\(expected.count) frames are on the wire") {
        sent += machine.wire.sent().filter { $0.count >= 12 && $0[6..<12] == source }
        return sent.count >= expected.count
      }
      try #require(sent == expected)
      try machine.settle()
    }
  }

  @Test func `what a VM sends is on the wire, byte for byte`() throws {
    try withCard { stage in
      let machine = try CardMachine(folder: stage.place("machine"))
      try machine.start()
      let expected = try Self.sent(5000, by: Self.macs[0], stage)
      let sender = try FrontEnd("send", "a", in: machine, "02:aa:aa:aa:aa:aa 0 5000")
      try #require(try sender.end().contains("SENT 5000 of 5000"))
      var sent: [Data] = []
      try eventually("\(expected.count) frames are on the wire") {
        sent += machine.wire.sent()
        return sent.count >= expected.count
      }
      try #require(sent == expected, "\(zip(sent, expected).enumerated().first { $0.element.0 != $0.element.1 }?.offset ?? -1) is the first that differs")
      try machine.settle()
    }
  }

  /// What a front-end puts on the wire that sends patterned frames under its own address.
  private static func sent(_ frames: Int, by mac: String, _ stage: Stage) throws -> [Data] {
    let source = mac.split(separator: ":").map { UInt8($0, radix: 16)! }
    return try Trace(frames: frames, macs: ["02:aa:aa:aa:aa:aa"], folder: stage.folder).records().map { record in
      let frame = Array(record.dropFirst(16))
      return Data(frame[..<6] + source + frame[12...])
    }
  }

  /// QEMU's 82576 has the registers of the check and does not act by them: here it is the processor that does.
  @Test func `what a VM sends under another's address is not on the wire, and is counted`() throws {
    try withCard { stage in
      let machine = try CardMachine(folder: stage.place("machine"))
      try machine.start(["a", "b"])
      // On A's socket, under B's address; then under its own.
      let stranger = try FrontEnd("send", "a", in: machine, as: Self.macs[1], "02:aa:aa:aa:aa:aa 0 500")
      try #require(try stranger.end().contains("SENT 500 of 500"))
      let expected = try Self.sent(100, by: Self.macs[0], stage)
      let sender = try FrontEnd("send", "a", in: machine, "02:aa:aa:aa:aa:aa 0 100")
      try #require(try sender.end().contains("SENT 100 of 100"))
      var sent: [Data] = []
      try eventually("100 frames are on the wire") {
        sent += machine.wire.sent()
        return sent.count >= 100
      }
      try #require(sent == expected)
      let transmit = try #require(((try machine.status()["vms"] as? [String: Any])?["a"] as? [String: Any])?["transmit"] as? [String: Any])
      try #require((transmit["dropped_by"] as? [String: Int])?["spoofed"] == 500, "\(transmit)")
      try machine.settle()
    }
  }

  @Test func `a VM that has moved here is announced on the wire`() throws {
    try withCard { stage in
      let machine = try CardMachine(folder: stage.place("machine"))
      try machine.start(["a", "b"])
      let mac = Self.macs[0].split(separator: ":").map { UInt8($0, radix: 16)! }
      let sender = try FrontEnd("send", "a", in: machine, "02:aa:aa:aa:aa:aa 0 100 announce")
      try #require(try sender.end().contains("SENT 100 of 100"))
      var sent: [Data] = []
      try eventually("101 frames are on the wire") {
        sent += machine.wire.sent()
        return sent.count >= 101
      }
      // RFC 903: "request reverse" of the address about itself, to all.
      let payload: [UInt8] = [0, 1, 8, 0, 6, 4, 0, 3] + mac + [0, 0, 0, 0] + mac + [0, 0, 0, 0]
      let expected = Data(Array(repeating: 0xFF, count: 6) + mac + [0x80, 0x35] + payload)
      let announcements = sent.filter { $0.count >= 60 && $0.prefix(expected.count) == expected }
      try #require(announcements.count == 1 && sent.count == 101)
      try machine.settle()
      try eventually("nothing stays mapped") { try machine.nic()["iommu_maps"] as? Int == 0 }
      let log = try machine.log()
      try #require(!log.contains("was not announced"), "\(log)")
    }
  }

  @Test func `memory that a front-end takes back is not written after the reply`() throws {
    try withCard { stage in
      let machine = try CardMachine(folder: stage.place("machine"))
      try machine.start()
      let rounds = Rig.rounds(100, full: 1000)
      let trace = try Trace(frames: 20_000, macs: [Self.macs[0]], folder: stage.folder)
      let receiver = try FrontEnd("churn", "a", in: machine, "0 20000 1000 600 \(rounds) acks")
      try machine.wire.flood(trace)
      defer { machine.wire.endFlood() }
      let said = try receiver.end()
      print("82576: \(said.replacing("\n", with: "; "))")
      try #require(said.contains("CHURN \(rounds) rounds 0 writes after the reply") && said.contains("STRAY 0\n"), "\(said)")
      let tally = try Tally(said)
      try #require(tally.bad == 0 && tally.duplicate == 0 && tally.good > rounds, "\(tally)")
      machine.wire.endFlood()
      try machine.settle()
    }
  }

  @Test func `the 82576 passes the suite that every card passes`() throws { try conform(.backports, "group") }
  @Test(.needs([.kernel(.iommufd)])) func `by iommufd too the 82576 passes the suite that every card passes`() throws { try conform(.iommufd, "iommufd") }

  private func conform(_ kernel: Kernel, _ interface: String) throws {
    try withCard { stage in
      let program = URL(fileURLWithPath: Rig.sluice).deletingLastPathComponent().appendingPathComponent("CardConformance").path
      let machine = try CardMachine(kernel: kernel, program: program, hasFeeder: true, folder: stage.place("machine"))
      try machine.guest.check("ip link set eth0 mtu 9000 up && mkfifo /run/wire && (wire eth0 < /run/wire > /run/wire.log 2>&1 &)")
      // One that hangs says where: what it waits for in the kernel, and what the other end of its wire does.
      let script = """
        timeout -s KILL 600 CardConformance \(machine.card) \(interface) /run/wire; status=$?
        if [ $status != 0 ]; then
          cat /run/wire.log; ps; for p in $(pidof wire); do cat /proc/$p/wchan /proc/$p/status; done; dmesg | tail -5
        fi
        exit $status
        """
      let outcome = try machine.guest.run(script, within: 700)
      print("82576: \(outcome.output)")
      try #require(outcome.status == 0, "\(outcome.output)")
    }
  }

  @Test func `what stands between a user and a card is named, with what mends it`() throws {
    try withCard { stage in
      let machine = try CardMachine(folder: stage.place("machine"))
      let guest = machine.guest
      try guest.check("mkdir -p /etc /run/u && printf 'root:x:0:0::/:/bin/sh\\nu:x:1000:1000::/:/bin/sh\\n' > /etc/passwd && chmod 755 / /bin && chown u /run/u")
      let run = "sluice run --nic vfio:\(machine.card) --vm a,socket=a.sock,mac=\(Self.macs[0]),packed=off"
      func expect(_ script: String, says words: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
        let outcome = try guest.run(script)
        try #require(outcome.output.contains(words), "\(script): \(outcome.output)", sourceLocation: sourceLocation)
      }
      try expect("su u -c 'cd /run/u && \(run)'", says: "not permitted; run as its owner, or give it to this user: chown USER /dev/vfio/")
      try expect("cd /run/u && \(run) --vfio iommufd", says: "/dev/iommu is not there; the kernel has no iommufd")
      try expect("sluice run --nic vfio:0000:00:1f.2 --vm a,socket=a", says: "8086:2922: there is no driver for it here")
      // As a user without privileges, who may keep less in memory than the guest has.
      let limited = "ulimit -l 1024; cd /run/u; (\(run) --control c > log 2>&1 &); until grep -q ready log; do usleep 20000; done"
      let attempt = "frontend receive a.sock \(Self.macs[0]) 0 100 1 1 2> /dev/null; cat log; killall sluice; while pidof sluice > /dev/null; do usleep 20000; done"
      try guest.check("chown u /dev/vfio/*")
      try expect("su u -c 'sluice doctor \(machine.card)'", says: "✗ memlock")
      try expect(
        "su u -c '\(limited); \(attempt)'",
        says: "2097152 bytes have to stay in memory, and this process may keep 1048576; raise it: ulimit -l 2048, or LimitMEMLOCK= of the unit")
      // A container that takes four mappings: ours and the guest's are more.
      try guest.check("echo 4 > /sys/module/vfio_iommu_type1/parameters/dma_entry_limit")
      try machine.start()
      try expect("cd /run; frontend receive a.sock \(Self.macs[0]) 0 100 1 1 acks; cat sluice.log", says: "the limit on mappings was reached; raise it: the parameter dma_entry_limit of vfio_iommu_type1")
      try eventually("nothing stays mapped") { try machine.nic()["iommu_maps"] as? Int == 0 }
      try machine.stop()
      try guest.check("echo 65535 > /sys/module/vfio_iommu_type1/parameters/dma_entry_limit")
      let findings = try guest.check("sluice doctor \(machine.card)")
      for good in ["✓ iommu ", "✓ iommu-strict", "✓ vfio ", "✓ driver ", "✓ group ", "✓ reset             by flr", "Nothing stands in the way"] {
        try #require(findings.contains(good), "\(good) is not in: \(findings)")
      }
      try expect("echo \(machine.card) > /sys/bus/pci/drivers/vfio-pci/unbind; \(run)", says: "is driven by nothing, not by vfio-pci; bind it: modprobe vfio-pci; echo vfio-pci >")
    }
  }

  // MARK: A card that goes, and comes again

  private enum Loss: Sendable, CaseIterable {
    case link, reset, unplug, nonfatal, fatal
    var rounds: Int {
      switch self {
      case .link: Rig.rounds(5, full: 100)
      case .reset: Rig.rounds(3, full: 20)
      case .unplug, .nonfatal, .fatal: Rig.rounds(2, full: 20)
      }
    }
    /// What the log gives as the reason; nil: nothing is lost.
    var words: String? {
      switch self {
      case .link: nil
      case .reset: "somebody has reset it"
      case .unplug: "the kernel asks for it back: it is being taken out"
      case .nonfatal, .fatal: "the bus reports an error that the card could not mend"
      }
    }
  }

  @Test(arguments: Loss.allCases) private func `a card that was lost under traffic comes back by itself`(loss: Loss) throws {
    try withCard { stage in
      let machine = try CardMachine(folder: stage.place("machine"))
      try machine.start()
      let trace = try Trace(frames: 20_000, macs: [Self.macs[0]], folder: stage.folder)
      let receiver = try FrontEnd("receive", "a", in: machine, "0 20000 60000 3000 acks")
      try machine.wire.flood(trace)
      defer { machine.wire.endFlood() }
      for round in 1...loss.rounds {
        try receiver.isReceiving()
        switch loss {
        case .link:
          try machine.qmp.run("set_link", ["name": "wire", "up": false])
          try eventually("the link is down") { try machine.nic()["link_up"] as? Bool == false }
          try machine.qmp.run("set_link", ["name": "wire", "up": true])
          try machine.hasLink()
        case .reset: try machine.reset()
        case .unplug:
          try machine.unplug()
          try machine.plug()
        case .nonfatal: try machine.inject(.completionTimeout)
        case .fatal: try machine.inject(.malformedPacket)
        }
        // One loss at a time is what is counted.
        if loss.words != nil { try eventually("the card is back") { try machine.count("the card is back") >= round } }
      }
      try receiver.isReceiving()
      let log = try machine.log()
      let losses = try machine.count(loss.words.map { "reason=\"\($0)\"" } ?? "the card was lost")
      try #require(losses == (loss.words == nil ? 0 : loss.rounds), "\(log)")
      machine.wire.endFlood()
      try receiver.interrupt()
      let tally = try receiver.tally()
      print("82576, \(loss) \(loss.rounds) times: \(tally)")
      try #require(tally.bad == 0 && tally.duplicate == 0 && tally.reordered == 0 && tally.astray == 0, "\(tally)")
      try machine.settle()
    }
  }

  @Test(.needs([.kernel(.iommufd)])) func `a virtual function that somebody has reset by itself is taken again, amid traffic or none`() throws {
    try withCard { stage in
      let machine = try CardMachine(kernel: .iommufd, folder: stage.place("machine"))
      try machine.takeVirtualFunction()
      try machine.start(["b"])
      let trace = try Trace(frames: 60_000, macs: [Self.macs[1]], folder: stage.folder)
      // With no queue that would stand still it is seen when there is to be one.
      try machine.reset()
      let receiver = try FrontEnd("receive", "b", in: machine, "0 60000 20000 3000 acks")
      try machine.wire.flood(trace)
      defer { machine.wire.endFlood() }
      let rounds = Rig.rounds(3, full: 20)
      for round in 1...rounds {
        try receiver.isReceiving()
        try eventually("the card is back") { try machine.count("the card is back") >= round }
        try machine.reset()
      }
      try eventually("the card is back") { try machine.count("the card is back") > rounds }
      try receiver.isReceiving()
      let log = try machine.log()
      let losses = try machine.count("reason=\"somebody has reset it\"")
      try #require(losses == rounds + 1, "\(log)")
      machine.wire.endFlood()
      try receiver.interrupt()
      let tally = try receiver.tally()
      print("82576 VF, reset \(rounds + 1) times: \(tally)")
      try #require(tally.bad == 0 && tally.duplicate == 0 && tally.reordered == 0 && tally.astray == 0, "\(tally)")
      try machine.settle()
    }
  }

  @Test func `errors on the bus that were mended are told, and disturb nobody`() throws {
    try withCard { stage in
      let machine = try CardMachine(folder: stage.place("machine"))
      try machine.start()
      func told(_ name: String) throws -> Int? { ((try machine.nic()["bus_errors"] as? [String: [String: Int]])?["correctable"])?[name] }
      try #require(try told("BadTLP") == 0 && told("Timeout") == 0)
      let trace = try Trace(frames: 20_000, macs: [Self.macs[0]], folder: stage.folder)
      let receiver = try FrontEnd("receive", "a", in: machine, "0 20000 60000 3000 acks")
      try machine.wire.flood(trace)
      defer { machine.wire.endFlood() }
      for round in 1...3 {
        try machine.inject(.badPacket)
        try machine.inject(.replayTimeout)
        // Two of a kind before the kernel has looked are one.
        try eventually("the errors are counted") { try told("BadTLP") == round && told("Timeout") == round }
        try receiver.isReceiving()
      }
      machine.wire.endFlood()
      try receiver.interrupt()
      let tally = try receiver.tally()
      try #require(tally.bad == 0 && tally.duplicate == 0 && tally.reordered == 0 && tally.astray == 0, "\(tally)")
      let findings = try machine.guest.run("sluice doctor \(machine.card)").output
      try #require(findings.contains("at the port above it, 0000:00:01.0, correctable") && findings.contains("BadTLP 3, Timeout 3"), "\(findings)")
      try #require(try machine.count("the card was lost") == 0)
      try machine.settle()
    }
  }

  @Test func `a front-end that comes while there is no card has its frames when there is one`() throws {
    try withCard { stage in
      let machine = try CardMachine(folder: stage.place("machine"))
      try machine.start(["a", "b"])
      // One that goes while the card is away, and one that comes.
      let leaving = try FrontEnd.receiving("a", in: machine, frames: 1000)
      try machine.unplug()
      try eventually("the card is away") { (try machine.nic()["kind"] as? String)?.hasSuffix("away") == true }
      try leaving.interrupt()
      try #require(try leaving.tally().good == 0)
      let trace = try Trace(frames: 1000, macs: Self.macs, folder: stage.folder)
      let receivers = try ["a", "b"].map { try FrontEnd.receiving($0, in: machine, frames: 1000) }
      // Rules that are given meanwhile are the card's when it comes.
      try machine.guest.check("sluice rules add --control /run/control 'match eth.dst=02:00:00:00:00:77 then vm b'")
      try machine.plug()
      try machine.hasLink()
      try machine.deliver(trace, to: ["a", "b"])
      for receiver in receivers {
        let tally = try receiver.tally()
        try #require(tally.isWhole(1000), "\(tally); the NIC dropped \(machine.droppedByNIC) for want of descriptors")
      }
      let more = try FrontEnd.receiving("b", in: machine, frames: 100)
      machine.wire.send(Data([2, 0, 0, 0, 0, 0x77] + [2, 0, 0, 0, 0, 1, 0x88, 0xB6] + Array(repeating: 0, count: 60)))
      try eventually("the frame of the new rule") { try more.others() == 1 }
      try more.interrupt()
      try machine.settle()
    }
  }
}
