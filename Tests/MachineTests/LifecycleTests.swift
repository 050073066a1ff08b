import Foundation
import Testing

/// What happens to a VM in its life, under traffic.
@RigActor @Suite(.needs([.backEnd])) struct LifecycleTests {
  @Test(.needs(Need.bookwormGuest)) func `every frame for a VM that is stopped and continued is accounted for`() throws {
    try withMachine { stage, backEnd, machine in
      let rounds = Rig.rounds(20, full: 500)
      try countEach(of: rounds, stage, backEnd, machine) { round in
        // Some rounds stop before the first frame, some amid, some after the last.
        usleep(UInt32(round % 5) * 10_000)
        try machine.qmp.run("stop")
        try #require(try machine.qmp.status() == "paused")
        try machine.qmp.run("cont")
      }
    }
  }

  /// In each round a few frames of its own, while `change` happens: the guest counts exactly those that the back-end says
  /// it delivered, and what it dropped, it dropped because the guest's ring was stopped.
  private func countEach(of rounds: Int, _ stage: Stage, _ backEnd: any BackEnd, _ machine: Machine, _ change: (Int) throws -> Void) throws {
    let frames = 200
    let sink = try Sink(in: machine.guest, frames: frames * rounds)
    var expected = 0
    for round in 0..<rounds {
      let injection = try backEnd.inject(Trace(first: round * frames, frames: frames, folder: stage.folder), laps: 1)
      try change(round)
      let settled = try injection.end()
      try #require(Set(settled.dropped.keys).isSubset(of: ["ring_stopped"]), "\(settled)")
      expected += settled.delivered
    }
    try eventually("\(expected) frames are counted") { try sink.soFar().good >= expected }
    let tally = try sink.end(within: 0)
    print("\(expected) of \(frames * rounds) frames delivered, the others dropped because the ring was stopped")
    try #require(tally.good == expected && tally.isSound, "delivered \(expected), \(tally)")
    // And the path is as good as new.
    let after = try delivered(Trace(first: 1 << 24, frames: 1000, folder: stage.folder), by: backEnd, to: machine.guest)
    try #require(after.isWhole(1000), "\(after)")
  }

  @Test(.needs(Need.bookwormGuest)) func `a guest that is reset under traffic is served again`() throws {
    try withMachine { stage, backEnd, machine in
      for round in 0..<Rig.rounds(2, full: 20) {
        try disturb(round: round, stage, backEnd, machine) {
          try machine.qmp.run("system_reset")
          try machine.isUp()
          try machine.guest.bringUp()
        }
      }
    }
  }

  @Test(.needs(Need.backportsGuest)) func `a driver that is unbound and bound under traffic is served again`() throws {
    try withMachine(.backports, .backports) { stage, backEnd, machine in
      let device = try machine.guest.check("basename $(readlink -f /sys/class/net/eth0/device)")
      for round in 0..<Rig.rounds(3, full: 20) {
        try disturb(round: round, stage, backEnd, machine) {
          try machine.guest.check("killall sink; cd /sys/bus/virtio/drivers/virtio_net && echo \(device) > unbind && echo \(device) > bind")
          try machine.guest.bringUp()
        }
      }
      try disturb(round: Rig.rounds(3, full: 20), stage, backEnd, machine) {
        try machine.guest.check("killall sink; rmmod virtio_net && modprobe virtio_net")
        try machine.guest.bringUp()
      }
    }
  }

  /// Traffic, a change that the driver does not survive, and then whether a new trace arrives whole.
  private func disturb(round: Int, _ stage: Stage, _ backEnd: any BackEnd, _ machine: Machine, _ change: () throws -> Void) throws {
    let traffic = try Trace.lasting(round: round, folder: stage.folder)
    let before = try Sink(in: machine.guest, traffic, laps: Trace.endless)
    let injection = try backEnd.inject(traffic, laps: Trace.endless)
    try eventually("traffic") { try before.soFar().good > 300 }
    try change()
    injection.cancel()
    let trace = try Trace(first: round * 1000, frames: 1000, folder: stage.folder)
    let tally = try delivered(trace, by: backEnd, to: machine.guest)
    // Frames of before may be on the wire still.
    try #require(tally.good == 1000 && tally.bad == 0 && tally.duplicate == 0 && tally.reordered == 0, "round \(round): \(tally)")
    let complaints = try machine.guest.complaints()
    try #require(complaints.isEmpty, "\(complaints)")
  }

  /// A shared memory device's BAR is memory of the guest's, which its command register maps and unmaps: a vhost-user
  /// memory slot that comes and goes without an operator.
  @Test(.needs(Need.bookwormGuest)) func `memory that comes and goes under traffic disturbs nothing`() throws {
    let more = ["-object", "memory-backend-memfd,id=shared,share=on,size=16M", "-device", "ivshmem-plain,memdev=shared,addr=5"]
    try withMachine(more: more) { stage, backEnd, machine in
      func setMapped(_ isMapped: Bool) throws {
        let command = isMapped ? #"\002"# : #"\000"#
        try machine.guest.check("printf '\(command)\\000' | dd of=/sys/bus/pci/devices/0000:00:05.0/config bs=1 seek=4 conv=notrunc 2> /dev/null")
      }
      var slots: Set<Int> = []
      try countEach(of: Rig.rounds(20, full: 500), stage, backEnd, machine) { _ in
        for isMapped in [true, false] {
          try setMapped(isMapped)
          slots.insert(backEnd.process.mappedFiles.filter { $0.key.hasPrefix("/memfd:memory-backend-memfd") }.values.reduce(0, +))
        }
      }
      // Or nothing came and went.
      try #require(slots.count > 1, "the back-end had mapped \(slots)")
    }
  }

  @Test(.needs(Need.backportsGuest)) func `memory that is plugged in and out under traffic disturbs nothing`() throws {
    try withMachine(.backports, .backports, mostMegabytes: 1024) { stage, backEnd, machine in
      let rounds = Rig.rounds(1, full: 10)
      for round in 0..<rounds {
        let traffic = try Trace.lasting(round: round, folder: stage.folder)
        let sink = try Sink(in: machine.guest, traffic, laps: Trace.endless)
        let start = try backEnd.delivered(to: "vm")
        let injection = try backEnd.inject(traffic, laps: Trace.endless)
        let before = try Self.megabytes(machine)
        try Self.plug("dimm\(round)", into: machine)
        try eventually("the guest has more memory") { try Self.megabytes(machine) >= before + 128 }
        let mark = machine.qmp.events.count
        try machine.qmp.run("device_del", ["id": "dimm\(round)"])
        try machine.qmp.event("DEVICE_DELETED", after: mark)
        try machine.qmp.run("object-del", ["id": "memory-dimm\(round)"])
        try eventually("the guest has less memory") { try Self.megabytes(machine) <= before }
        let then = try sink.soFar().good
        try eventually("traffic goes on") { try sink.soFar().good > then + 500 }
        injection.cancel()
        try backEnd.settle()
        let end = try backEnd.delivered(to: "vm")
        let tally = try sink.settled(at: (end ?? 0) - (start ?? 0))
        // Each change of the memory table stops the rings for a moment, and what comes then is dropped.
        if let start, let end {
          try #require(tally.isSound && tally.good == end - start, "round \(round): delivered \(end - start), \(tally)")
        } else {
          try #require(tally.isUnbroken, "round \(round): \(tally)")
        }
        _ = try sink.end(within: 0)
      }
      // And now for buffers: above 4 GiB it is of the zone that the kernel takes from first, if it may.
      try machine.guest.check("echo online_kernel > /sys/devices/system/memory/auto_online_blocks")
      try Self.plug("buffers", into: machine)
      try machine.guest.check("until grep -q 'zone *Normal' /proc/zoneinfo; do usleep 20000; done; rmmod virtio_net && modprobe virtio_net")
      try machine.guest.bringUp()
      let trace = try Trace(first: rounds * 1000, frames: 1000, folder: stage.folder)
      let tally = try delivered(trace, by: backEnd, to: machine.guest)
      try #require(tally.isWhole(1000), "\(tally)")
    }
  }

  private static func plug(_ name: String, into machine: Machine) throws {
    let backing: [String: any Sendable] = ["qom-type": "memory-backend-memfd", "id": "memory-" + name, "share": true, "size": 128 << 20]
    try machine.qmp.run("object-add", backing)
    try machine.qmp.run("device_add", ["driver": "pc-dimm", "id": name, "memdev": "memory-" + name])
  }

  private static func megabytes(_ machine: Machine) throws -> Int {
    try Int(machine.guest.check("awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo")) ?? 0
  }

  private func withMachine(
    _ kernel: Kernel = .bookworm, _ emulator: Emulator = .machine, mostMegabytes: Int? = nil, more: [String] = [],
    _ body: (Stage, any BackEnd, Machine) throws -> Void
  ) throws {
    try withStage { stage in
      let port = stage.port()
      let backEnd = try stage.backEnd([port])
      let machine = try stage.machine(for: port) {
        $0.kernel = kernel
        $0.emulator = emulator
        $0.mostMegabytes = mostMegabytes
        $0.more = more
      }
      try machine.isUp()
      try machine.guest.bringUp()
      try body(stage, backEnd, machine)
    }
  }
}
