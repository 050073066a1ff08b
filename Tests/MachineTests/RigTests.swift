import Foundation
import Testing

/// The rig itself, with a back-end and front-ends that no one here wrote: what fails here is no fault of Sluice.
@RigActor @Suite(.needs([.testpmd])) struct RigTests {
  @Test(.needs(Need.bookwormGuest)) func `frames of testpmd arrive in a guest whole and in order`() throws {
    try withStage { stage in
      let port = stage.port()
      let backEnd = TestpmdBackEnd([port], folder: try stage.place("testpmd"))
      try backEnd.start()
      let machine = try stage.machine(for: port)
      let trace = try Trace(frames: 2000, folder: stage.folder)
      let tally = try delivered(trace, by: backEnd, to: machine)
      try #require(tally.isWhole(2000), "\(tally)")
    }
  }

  @Test func `frames of testpmd arrive at virtio-user whole and in order`() throws {
    try withStage { stage in
      let port = stage.port()
      let backEnd = TestpmdBackEnd([port], folder: try stage.place("testpmd"))
      try backEnd.start()
      let trace = try Trace(frames: 2000, folder: stage.folder)
      let frontEnd = try VirtioUser(port, trace, folder: stage.place("virtio-user"))
      _ = try backEnd.inject(trace, laps: 1).end()
      let tally = try frontEnd.end(frames: 2000)
      try #require(tally.isWhole(2000), "\(tally)")
    }
  }

  /// The counting programs judge everything else.
  @Test func `a frame that is damaged, lost, doubled, early or another VM's is told apart`() throws {
    try withStage { stage in
      let trace = try Trace(frames: 100, macs: ["52:54:00:12:34:56", "52:54:00:12:34:57"], folder: stage.folder)
      // Every other is another VM's.
      func tally(laps: Int = 1, _ change: (inout [Data]) -> Void) throws -> Tally {
        var records = try trace.records()
        change(&records)
        let path = stage.folder + "/changed.pcap"
        try (Trace.header + Data(records.joined())).write(to: URL(fileURLWithPath: path))
        let output = try Shell.run(["sh", "-c", #""$0" 0 100 "$2" < "$1""#, Rig.program("check"), path, "\(laps)"]).output
        return try Tally(output)
      }
      var one = try tally { _ in }
      #expect(one.good == 100 && one.astray == 100 && one.missing == 0 && one.bad == 0 && one.duplicate == 0 && one.reordered == 0, "\(one)")
      one = try tally { $0[10][100] ^= 1 }
      #expect(one.good == 99 && one.bad == 1 && one.holes == 1 && one.missing == 1, "\(one)")
      one = try tally { $0[0][16 + 40] ^= 0x80 }
      #expect(one.bad == 1, "a checksum: \(one)")
      one = try tally { $0.remove(at: 20) }
      #expect(one.good == 99 && one.missing == 1 && one.holes == 1, "\(one)")
      one = try tally { $0.removeLast(2) }
      #expect(one.good == 99 && one.missing == 1 && one.holes == 0, "\(one)")
      one = try tally { $0.append($0[30]) }
      #expect(one.good == 100 && one.duplicate == 1, "\(one)")
      one = try tally { $0.swapAt(2, 130) }
      #expect(one.good == 100 && one.reordered == 1, "1 and 65 are of one flow: \(one)")
    }
  }

  @Test func `a trace in laps is counted as if it were one`() throws {
    try withStage { stage in
      let trace = try Trace(frames: 1000, folder: stage.folder)
      let lap = try trace.records()
      func tally(_ records: [Data]) throws -> Tally {
        let path = stage.folder + "/laps.pcap"
        try (Trace.header + Data(records.joined())).write(to: URL(fileURLWithPath: path))
        return try Tally(Shell.run(["sh", "-c", #""$0" 0 1000 3 < "$1""#, Rig.program("check"), path]).output)
      }
      var one = try tally(lap + lap + lap)
      #expect(one.isWhole(3000), "\(one)")
      one = try tally(lap + lap.prefix(200) + lap.dropFirst(800) + lap)
      #expect(one.good == 2400 && one.holes == 600 && one.isSound, "600 lost: \(one)")
      one = try tally(lap.dropLast(300) + lap.dropFirst(300) + lap)
      #expect(one.good == 2400 && one.holes == 600 && one.isSound, "600 lost where one lap ends: \(one)")
      one = try tally(lap + lap.prefix(500) + lap[470..<500] + lap.dropFirst(500) + lap)
      #expect(one.good == 3000 && one.duplicate == 30 && one.reordered == 0, "30 doubled: \(one)")
      one = try tally(lap + lap.dropLast(10) + lap.prefix(100) + lap.suffix(10) + lap.dropFirst(100))
      #expect(one.good == 3000 && one.duplicate == 0 && one.reordered == 10, "10 too late: \(one)")
    }
  }
}
