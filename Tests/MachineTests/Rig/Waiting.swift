// Waiting with an end. Deadlines are generous: the machine may be busy with something else, and time decides no test.

import Foundation

struct Deadline {
  /// Seconds after which something does not come any more: many times what it takes under emulation beside other load.
  static let patience = 240

  private let end: ContinuousClock.Instant
  let allowed: Int

  /// In `seconds` from now.
  init(seconds: Int = Deadline.patience) {
    allowed = seconds
    end = .now + .seconds(seconds)
  }

  var isOver: Bool { .now >= end }
  /// For Foundation's waits.
  var date: Date { Date(timeIntervalSinceNow: (end - .now) / .seconds(1)) }
  /// For poll(2).
  var milliseconds: Int32 {
    let left = (end - .now) / .milliseconds(1)
    return Int32(max(0, min(left.rounded(.up), 1_000_000)))
  }
}

/// The first value that `look` gives, looking again every few milliseconds; throws what it was that did not come.
func eventually<Value>(_ what: @autoclosure () -> String, within seconds: Int = Deadline.patience, _ look: () throws -> Value?) throws -> Value {
  let deadline = Deadline(seconds: seconds)
  while true {
    if let value = try look() { return value }
    if deadline.isOver { throw RigError("not within \(seconds) s: \(what())") }
    usleep(10_000)
  }
}

/// As `eventually`, for something that becomes true.
func eventually(_ what: @autoclosure () -> String, within seconds: Int = Deadline.patience, isTrue: () throws -> Bool) throws {
  try eventually(what(), within: seconds) { () -> Void? in try isTrue() ? () : nil }
}
