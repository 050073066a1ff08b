import Testing
@testable import Control

/// Deficit round robin, with ticks that the test gives.
@Suite struct FairSharesTests {
  /// A VM that asks for so many ticks in every iteration in which it has work.
  private struct Demand {
    let account = ShareAccount()
    /// What one poll of it takes.
    let ticks: UInt64
    /// In which iterations it has work.
    let hasWork: (_ iteration: Int) -> Bool
    init(_ ticks: UInt64, hasWork: @escaping (Int) -> Bool = { _ in true }) { (self.ticks, self.hasWork) = (ticks, hasWork) }
  }

  /// Ticks that each got in the end.
  private func run(_ demands: [Demand], iterations: Int, quantum: UInt64 = 50_000) -> [UInt64] {
    let shares = FairShares(quantum: quantum)
    for demand in demands { shares.add(demand.account) }
    for iteration in 0..<iterations {
      for demand in demands where shares.mayPoll(demand.account) {
        let moved = demand.hasWork(iteration)
        // To look costs something too.
        shares.charge(demand.account, moved ? demand.ticks : 100, moved: moved)
      }
      _ = shares.endIteration()
    }
    return demands.map(\.account.chargedTicks)
  }

  @Test(arguments: [60_000, 100_000, 1_000_000, 25_000_000] as [UInt64])
  func `a VM keeps at least 45 % of its worker beside one whose every poll takes longer`(attack: UInt64) {
    let got = run([Demand(5_000), Demand(attack)], iterations: 100_000)
    #expect(Double(got[0]) >= 0.45 * Double(got[0] + got[1]), "\(got)")
  }

  @Test func `each of four VMs gets a quarter, less what a long poll costs the others`() {
    let polls: [UInt64] = [2_000, 20_000, 70_000, 400_000]
    let got = run(polls.map { Demand($0) }, iterations: 400_000)
    // Beyond a quantum of 50,000 a tick counts for one and a half.
    let counted = zip(got, polls).map { Double($0) * (1 + 0.5 * Double($1 > 50_000 ? $1 - 50_000 : 0) / Double($1)) }
    for ticks in counted { #expect(abs(ticks / counted.reduce(0, +) - 0.25) < 0.03, "\(got)") }
    #expect(got[0] > got[3] && got[1] > got[3])
  }

  @Test func `a VM that is ahead goes on while nobody else has work`() {
    let idle = Demand(5_000) { _ in false }
    let busy = Demand(1_000_000)
    let got = run([idle, busy], iterations: 1000)
    // Every other iteration at least.
    #expect(got[1] >= 499 * 1_000_000)
    let alone = run([Demand(1_000_000)], iterations: 1000)
    #expect(alone[0] >= 499 * 1_000_000)
  }

  @Test func `a VM that had no work has saved nothing up`() {
    let sleeper = Demand(5_000) { $0 >= 50_000 }
    let other = Demand(5_000)
    let shares = FairShares(quantum: 50_000)
    shares.add(sleeper.account)
    shares.add(other.account)
    var passedOver = 0
    for iteration in 0..<60_000 {
      for demand in [sleeper, other] {
        guard shares.mayPoll(demand.account) else {
          passedOver += 1
          continue
        }
        shares.charge(demand.account, demand.hasWork(iteration) ? demand.ticks : 100, moved: demand.hasWork(iteration))
      }
      _ = shares.endIteration()
    }
    // Had it credit for 50,000 iterations, the other one would be passed over now.
    #expect(passedOver == 0)
  }

  @Test func `a VM's time is charged once, its most at once is kept, and passing it over is counted`() {
    let shares = FairShares(quantum: 1000)
    let (a, b) = (ShareAccount(), ShareAccount())
    shares.add(a)
    shares.add(b)
    var mayPoll = [shares.mayPoll(a), shares.mayPoll(b)]
    #expect(mayPoll == [true, true])
    shares.charge(a, 3000, moved: true)
    shares.charge(b, 500, moved: true)
    var isOwing = shares.endIteration()
    #expect(!isOwing)
    // 3,500 ahead: what a took beyond a quantum of 1,000 counts half as much again.
    mayPoll = [shares.mayPoll(a), shares.mayPoll(b)]
    #expect(mayPoll == [false, true])
    for ticks: UInt64 in [800, 800, 1000] { shares.charge(b, ticks, moved: true) }
    isOwing = shares.endIteration()
    #expect(isOwing)
    // 900 ahead: within a quantum.
    mayPoll = [shares.mayPoll(a)]
    #expect(mayPoll == [true])
    #expect(a.chargedTicks == 3000 && a.longestTicks == 3000 && a.deferrals == 1)
    #expect(b.chargedTicks == 3100 && b.longestTicks == 1000 && b.deferrals == 0)
  }

  private final class Item {
    let number: Int
    init(_ number: Int) { self.number = number }
  }

  @Test func `a walk that ends early says so, and the next goes on behind it`() {
    let items = (0..<5).map(Item.init)
    let roster = Roster<Item>()
    roster.replace(with: items)
    var seen: [Int] = []
    var (next, isCut) = roster.forEach(from: 3) { item in
      seen.append(item.number)
      return seen.count < 3
    }
    #expect(seen == [3, 4, 0] && next == 1 && isCut)
    seen = []
    (next, isCut) = roster.forEach(from: next) { item in
      seen.append(item.number)
      return true
    }
    #expect(seen == [1, 2, 3, 4, 0] && next == 1 && !isCut)
    // One that is gone: from the first on. The last of them is no cut.
    roster.replace(with: Array(items.prefix(1)))
    (next, isCut) = roster.forEach(from: 4) { _ in false }
    #expect(next == 0 && !isCut)
  }

  // MARK: Notifications

  @Test func `one dear notification is an accident, and two of the last 64 are not`() {
    var cost = NotificationCost()
    let ticks = [25_000_000] + [UInt64](repeating: 5_000, count: 64) + [200_001] + [UInt64](repeating: 200_000, count: 62) + [200_001]
    let answers = ticks.map { cost.isDear(afterTicks: $0, dear: 200_000) }
    #expect(answers.firstIndex(of: true) == ticks.count - 1)
  }

  @Test func `a thread that notifies rests nine times as long as that took, within bounds`() {
    #expect(NotifierThread.rest(after: 5_000) == 0)
    #expect(NotifierThread.rest(after: 1_000_000) == 9_000_000)
    #expect(NotifierThread.rest(after: 25_000_000) == 225_000_000)
    #expect(NotifierThread.rest(after: 3_000_000_000) == NotifierThread.longestRest)
  }
}
