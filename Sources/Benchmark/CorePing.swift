internal import CLinux
internal import Linux

/// How far two cores are from each other: the time in which a cache line goes from one to the other and back.
///
/// A machine, and before all a virtual one, moves its processors about: what two threads do together costs several times as
/// much where their cores share no cache. A sample says nothing without this figure beside it.
public enum CorePing {
  /// Round trips that are timed together, and how many such times there are; the median counts.
  private static let trips = 400
  private static let times = 21

  /// The time of a round trip in nanoseconds. Nil: there are no two different processors, or no thread can be had.
  ///
  /// The calling thread is pinned to the first processor, and let go again.
  public static func measure(between processors: [Int], nanosecondsPerTick: Double) -> Double? {
    guard processors.count >= 2, processors[0] != processors[1] else { return nil }
    let line = SharedWord()
    let other = processors[1]
    guard let thread = try? Thread(name: "ping", processor: other, { answer(on: line) }) else { return nil }
    Thread.pin(to: processors[0])
    defer { Thread.unpin() }
    var next: UInt64 = 1
    // The other thread has to get to its processor first.
    call(line, from: &next, trips: trips)
    var spent: [Double] = []
    for _ in 0..<times {
      let before = TickCounter.now()
      call(line, from: &next, trips: trips)
      spent.append(Double(TickCounter.now() - before) * nanosecondsPerTick / Double(trips))
    }
    line.set(.max)
    thread.join()
    return Statistics.median(spent)
  }

  /// Odd numbers are ours, even ones the answers.
  private static func call(_ line: SharedWord, from next: inout UInt64, trips: Int) {
    for _ in 0..<trips {
      line.set(next)
      while line.value != next + 1 { sl_pause() }
      next += 2
    }
  }

  private static func answer(on line: SharedWord) {
    while true {
      let value = line.value
      if value == .max { return }
      if value & 1 == 1 { line.set(value + 1) } else { sl_pause() }
    }
  }
}
