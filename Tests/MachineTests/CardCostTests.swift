import Foundation
import Testing

/// What a frame costs on a real card, in instructions: the path and the driver are those of the model, and cost the same.
@RigActor @Suite(.needs([.sluice] + Need.backportsGuest)) struct CardCostTests {
  /// A debug build's instructions say nothing.
  private nonisolated static let program = Rig.package.path + "/.build/release/CardConformance"

  @Test(.enabled(if: Rig.exists(program), "there is no release build: swift build -c release"))
  func `a lent frame costs as much on the 82576 as on the model, and as much for 1514 bytes as for 60`() throws {
    try withStage { stage in
      let machine = try CardMachine(program: Self.program, hasFeeder: true, countsInstructions: true, folder: stage.place("machine"))
      try machine.guest.check("ip link set eth0 mtu 9000 up && mkfifo /run/wire && (wire eth0 < /run/wire > /run/wire.log 2>&1 &)")
      let output = try machine.guest.check("CardConformance \(machine.card) group /run/wire cost", within: 600)
      print("82576: \(output)")
      let costs = output.split(separator: "\n").compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }
      try #require(costs.count == 4)
      // Of 99 that Tests/Gates allows on the model; here the two readings of the clock are counted too.
      for cost in costs[..<2] { try #require(cost < 104, "\(cost) instructions a frame") }
      try #require(costs[1] < costs[0] * 1.05, "longer frames cost more: \(costs)")
      // The strict mode's are the kernel's: told, not judged.
      try #require(costs[2] > costs[0] && costs[3] > costs[1], "\(costs)")
    }
  }
}
