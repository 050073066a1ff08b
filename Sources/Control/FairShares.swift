internal import Linux

/// The time that a VM has taken of its worker, and by how much it is ahead of the others there.
///
/// Its worker's thread writes it; others may read.
final class ShareAccount: Sendable {
  /// Ticks by which this VM was served more than the least served one that has work; never below 0, so that a VM without
  /// work saves nothing up.
  private let lead = SharedWord()
  /// Bits of this iteration.
  private let state = SharedWord()
  private let charged = SharedWord()
  private let deferred = SharedWord()
  private let longest = SharedWord()

  /// Ticks that it was charged since the start.
  var chargedTicks: UInt64 { charged.value }
  /// The most ticks that it was charged at once.
  var longestTicks: UInt64 { longest.value }
  /// Iterations in which it was passed over.
  var deferrals: UInt64 { deferred.value }

  fileprivate static let moved: UInt64 = 1, passedOver: UInt64 = 2
  fileprivate var flags: UInt64 { state.value }
  fileprivate func note(_ flag: UInt64) { state.set(state.value | flag) }
  fileprivate var leadTicks: UInt64 { lead.value }

  fileprivate func defers() {
    note(Self.passedOver)
    deferred.set(deferred.value &+ 1)
  }
  /// - Parameter surcharge: ticks that count for the lead, and were not taken.
  fileprivate func add(_ ticks: UInt64, surcharge: UInt64) {
    lead.set(lead.value &+ ticks &+ surcharge)
    charged.set(charged.value &+ ticks)
    if ticks > longest.value { longest.set(ticks) }
  }
  fileprivate func beginIteration(least: UInt64) {
    let ahead = lead.value
    lead.set(ahead > least ? ahead &- least : 0)
    state.set(0)
  }
}

/// Deficit round robin over the VMs of one worker, in ticks of the processor's counter: a VM that has had more than a quantum
/// above the least served VM that has work is passed over until that one has caught up. What is charged is time, whatever it
/// was taken for: frames, descriptors, copies, notifications.
///
/// Work-conserving: where nobody else has anything to do, a VM that is ahead goes on, and its lead is forgotten. No credit is
/// saved up: a VM that had nothing to do begins where the least served one stands.
///
/// One thread's. To go round allocates nothing and counts no reference.
struct FairShares: ~Copyable {
  /// What a VM may be ahead by, and what it is polled for at a time, in ticks.
  let quantum: UInt64
  private let accounts = Roster<ShareAccount>()

  init(quantum: UInt64) { self.quantum = quantum }

  /// An account is one worker's at a time.
  func add(_ account: ShareAccount) { accounts.append(account) }
  func remove(_ account: ShareAccount) { accounts.remove(account) }

  /// Returns true if a VM may be polled in this iteration. If not, that is counted.
  @inline(__always) func mayPoll(_ account: ShareAccount) -> Bool {
    if account.leadTicks <= quantum { return true }
    account.defers()
    return false
  }

  /// Charges a VM for what it was polled for. What goes beyond a quantum counts half as much again: whoever is polled next finds
  /// the processor's caches full of it, and pays for that.
  ///
  /// - Parameter moved: it had work.
  @inline(__always) func charge(_ account: ShareAccount, _ ticks: UInt64, moved: Bool) {
    account.add(ticks, surcharge: ticks > quantum ? (ticks &- quantum) / 2 : 0)
    if moved { account.note(ShareAccount.moved) }
  }

  /// Ends an iteration over all VMs. Returns true if somebody was passed over: then there may be work.
  func endIteration() -> Bool {
    var (leastMoved, leastPassed) = (UInt64.max, UInt64.max)
    accounts.forEach { account in
      let lead = account.leadTicks
      if account.flags & ShareAccount.moved != 0 {
        leastMoved = min(leastMoved, lead)
      } else if account.flags & ShareAccount.passedOver != 0 {
        leastPassed = min(leastPassed, lead)
      }
    }
    // Of VMs without work the time of looking is forgotten, for all alike.
    let least = leastMoved != .max ? leastMoved : leastPassed
    accounts.forEach { $0.beginIteration(least: least) }
    return leastPassed != .max
  }
}
