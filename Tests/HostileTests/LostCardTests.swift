import FlowSteering
import Foundation
import Simulation
import Testing

@testable import Control

extension Hostile {
  /// A card that goes away under VMs that live on: no frame comes twice or torn, no descriptor is lost, and what was asked for
  /// meanwhile is so when there is a card again.
  @Suite(.serialized) struct LostCards {
    enum Loss: CaseIterable {
      /// Pulled, now or once it has written back so many descriptors more.
      case pulled, pulledAtOne, pulledAtSeven, pulledAtFifty
      /// Somebody else resets it.
      case reset

      func happen(to card: SimulatedCard) {
        let soon: UInt64? =
          switch self {
          case .pulledAtOne: 1
          case .pulledAtSeven: 7
          case .pulledAtFifty: 50
          default: nil
          }
        switch self {
        case .pulled: card.remove()
        case .reset: card.write(1 << 26, 0)
        default: card.faults.removedAfterDescriptors = card.descriptorsWrittenBack + soon!
        }
      }
    }

    private func card(of stage: Stage) async -> SharedCard? {
      await withCheckedContinuation { continuation in
        stage.service.onControlThread { continuation.resume(returning: $0.host.model) }
      }
    }
    private func isBack(_ stage: Stage, since mark: Int) async throws {
      for _ in 0..<2000 {
        if stage.events(since: mark).contains(where: { $0.message.contains("the card is back") }) { return }
        try await Task.sleep(for: .milliseconds(5))
      }
      Issue.record("the card did not come back: \(stage.events(since: mark).map(\.message))")
    }

    @Test(arguments: Loss.allCases) func `a victim has its frames again, whole and in order, after its card was lost`(loss: Loss) async throws {
      try await withStage(try Stage()) { stage in
        for round in 0..<3 {
          try await stage.victimGoesOn("before loss \(round)")
          let mark = stage.mark
          let model = try #require(await card(of: stage))
          model.withModels { card, _, _ in loss.happen(to: card) }
          // Traffic meets its end: what comes is a prefix of it, whole and once.
          let wanted = stage.frames(64, to: 0)
          // By then it may be known to be lost: that is said, and nothing comes.
          let report: InjectReport?
          do { report = try await stage.inject(wanted, speed: "pps=20000") } catch ControlError.busy { report = nil }
          try await isBack(stage, since: mark)
          let found = stage.victim.harvest()
          #expect(found == Array(wanted.prefix(found.count)), "\(found.count) frames came, and are not the first ones")
          #expect(report.map { $0.delivered["victim"].map { Int($0) } ?? 0 <= wanted.count } ?? found.isEmpty)
          stage.victim.replenish()
          let problems = stage.victim.audit(strangers: [stage.tag(1)])
          #expect(problems.isEmpty, "\(problems)")
          try await stage.victimGoesOn("after loss \(round)")
          let status = await stage.status()
          #expect(status.nic.kind == "sim" && status.nic.link_up && status.nic.iommu_faults == 0)
        }
      }
    }

    @Test func `what is asked for while there is no card is so when there is one`() async throws {
      try await withStage(try Stage()) { stage in
        let mark = stage.mark
        let model = try #require(await card(of: stage))
        model.withModels { card, _, _ in card.remove() }
        // Another front-end comes, and a rule, whether the card is noticed to be gone by then or not.
        let other = try Guest(stage, vm: 1)
        try other.start()
        other.replenish()
        var change = RuleChange()
        change.add = ["match eth.dst=02:00:00:00:0b:01 then vm attacker1"]
        _ = try await stage.service.change(change)
        try await isBack(stage, since: mark)
        try await stage.victimGoesOn("after it came")
        let own = stage.frames(4, to: 1)
        try await stage.inject(own)
        #expect(other.harvest() == own)
        other.replenish()
        var byRule = stage.frames(1, to: 1)
        byRule[0].replaceSubrange(0..<6, with: [2, 0, 0, 0, 0x0B, 1])
        try await stage.inject(byRule)
        #expect(other.collect().count == 1)
      }
    }
  }
}
