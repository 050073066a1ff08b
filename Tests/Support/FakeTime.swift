public import Bus

/// Time that passes only in pauses.
public final class FakeClock: Timekeeper {
  public private(set) var now: UInt64 = 0
  public private(set) var pauses: [UInt64] = []
  public init() {}
  public func pause(nanoseconds: UInt64) {
    pauses.append(nanoseconds)
    now += nanoseconds
  }
}

/// Registers that answer from a script, then keep the last answer.
public final class FakeRegisters: RegisterFile {
  public var answers: [Int: [UInt32]] = [:]
  public private(set) var writes: [(offset: Int, value: UInt32)] = []
  public private(set) var reads = 0
  public init() {}
  public func read(_ offset: Int) -> UInt32 {
    reads += 1
    guard var script = answers[offset], let first = script.first else { return 0 }
    if script.count > 1 {
      script.removeFirst()
      answers[offset] = script
    }
    return first
  }
  public func write(_ value: UInt32, _ offset: Int) {
    writes.append((offset, value))
    answers[offset] = [value]
  }
  public func doorbell(_ offset: Int) -> Doorbell { preconditionFailure("none here") }
}
