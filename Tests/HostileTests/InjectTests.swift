import Testing

@testable import Control

extension Hostile {
  /// `inject` beside VMs that are not there, and beside traffic that is not its own.
  @Suite(.serialized) struct Inject {
    /// Every frame for a VM without a front-end held the wire, and with it all VMs' frames, until patience with that queue ended.
    @Test func `frames for a VM that is not there are dropped at once, and hold back no other VM's`() async throws {
      try await withStage(try Stage()) { stage in
        let wanted = stage.frames(8, to: 0)
        let absent = stage.frames(8, to: 1)
        let report = try await stage.inject(zip(absent, wanted).flatMap { [$0, $1] })
        #expect(stage.victim.harvest() == wanted)
        #expect(report.frames.sent == 16 && report.frames.delivered == 8 && report.dropped_by == ["ring_stopped": 8], "\(report)")
        #expect(UInt64(report.elapsed_s * 1e9) < Injection.patience, "the wire waited for a VM that is not there")
        stage.victim.replenish()
        try await stage.victimGoesOn("after frames for a VM that is not there")
      }
    }

    /// Counters of the card and of the paths belong to different threads. Either may be read ahead of the other.
    @Test(arguments: [
      ([0], [0], 0), ([5], [5], 0), ([64], [1], 63), ([1], [64], 0), ([3, 10], [5, 4], 6), ([10, 3], [4, 900], 6),
      ([.max], [0], .max), ([0], [.max], 0), ([], [], 0),
    ] as [([UInt64], [UInt64], UInt64)])
    func `what is in flight is never less than nothing, and one VM's later frames do not hide another's`(
      arrived: [UInt64], settled: [UInt64], expected: UInt64
    ) { #expect(Injection.inFlight(arrived: arrived, settled: settled) == expected) }
  }
}
