import Foundation
import Testing

/// Frames arrive in real guests, whatever the shape of the ring and of the guest's memory.
@RigActor @Suite(.needs([.backEnd])) struct DeliveryTests {
  /// A device as QEMU offers it.
  struct Device: Sendable, CustomTestStringConvertible {
    var isPacked: Bool
    var pairs: Int
    var testDescription: String { "\(isPacked ? "packed" : "split"), \(pairs) queue pair\(pairs > 1 ? "s" : "")" }

    static let all = [false, true].flatMap { isPacked in [1, 2].map { Device(isPacked: isPacked, pairs: $0) } }
  }

  private static let frames = 2000
  private nonisolated static let rounds = Rig.rounds(1, full: 10)
  /// Each of them, or of each property one.
  private nonisolated static func some(_ quick: Device...) -> [Device] { Rig.isFull ? Device.all : quick }

  @Test(
    .needs(Need.bookwormGuest),
    arguments: some(Device(isPacked: false, pairs: 1), Device(isPacked: true, pairs: 1), Device(isPacked: false, pairs: 2)))
  func `a guest of Linux 6.1 receives a trace whole and in order`(device: Device) throws {
    try deliver(device, .bookworm, .machine, .memfd)
  }

  @Test(.needs(Need.bookwormGuest + [.hugePages]), arguments: some(Device(isPacked: false, pairs: 1)))
  func `a guest of Linux 6.1 in huge pages receives a trace whole and in order`(device: Device) throws {
    try deliver(device, .bookworm, .machine, .hugetlb)
  }

  @Test(.needs(Need.backportsGuest), arguments: some(Device(isPacked: false, pairs: 2), Device(isPacked: true, pairs: 2)))
  func `a guest of Linux 6.12 receives a trace whole and in order`(device: Device) throws {
    try deliver(device, .backports, .backports, .memfd)
  }

  @Test(.needs(Need.backportsGuest + [.hugePages]), arguments: some(Device(isPacked: true, pairs: 1)))
  func `a guest of Linux 6.12 in huge pages receives a trace whole and in order`(device: Device) throws {
    try deliver(device, .backports, .backports, .hugetlb)
  }

  private func deliver(_ device: Device, _ kernel: Kernel, _ emulator: Emulator, _ memory: MachineOptions.Memory) throws {
    for _ in 0..<Self.rounds {
      if memory == .hugetlb {
        try HugePages.with(megabytes: 256) { try deliverOnce(device, kernel, emulator, memory) }
      } else {
        try deliverOnce(device, kernel, emulator, memory)
      }
    }
  }

  private func deliverOnce(_ device: Device, _ kernel: Kernel, _ emulator: Emulator, _ memory: MachineOptions.Memory) throws {
    try withStage { stage in
      var port = stage.port()
      port.isPacked = device.isPacked
      port.pairs = device.pairs
      let backEnd = try stage.backEnd([port])
      let machine = try stage.machine(for: port) {
        $0.kernel = kernel
        $0.emulator = emulator
        $0.memory = memory
      }
      let trace = try Trace(frames: Self.frames, folder: stage.folder)
      let tally = try delivered(trace, by: backEnd, to: machine)
      let features = try machine.guest.features()
      print("\(kernel), \(memory), \(device.testDescription): \(features.sorted().joined(separator: " ")); \(tally)")
      try #require(tally.isWhole(Self.frames), "\(tally)")
      try #require(features.contains("VERSION_1"))
      try #require(features.contains("RING_PACKED") == device.isPacked)
      try #require(features.contains("MQ") == (device.pairs > 1))
      if device.pairs > 1, machine.options.hasMSIX {
        let interrupts = try machine.guest.receiveInterrupts()
        try #require(interrupts.count == device.pairs && interrupts.allSatisfy { $0 > 0 }, "\(interrupts)")
      }
      let complaints = try machine.guest.complaints()
      try #require(complaints.isEmpty, "\(complaints)")
    }
  }
}
