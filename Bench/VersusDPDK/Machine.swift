import Benchmark
import Linux

/// This machine, and how far apart its two processors are now.
struct Machine {
  let processors: (Int, Int)
  private let nanosecondsPerTick = 1e9 / TickCounter.measureRate()

  /// A cache line's way to the other processor and back, in nanoseconds: which of two places the hypervisor has these
  /// processors in is worth a factor of two in every figure.
  func roundTrip() throws -> Double {
    guard let time = CorePing.measure(between: [processors.0, processors.1], nanosecondsPerTick: nanosecondsPerTick) else {
      throw Failure("processors \(processors.0) and \(processors.1): no thread can be had on both")
    }
    return time
  }

  /// Where the processors are, in classes that can be compared: some 50 ns, and 350 to 420.
  enum Distance: String, Encodable, CaseIterable { case near, far }
  static func distance(_ before: Double, _ after: Double) -> Distance? {
    if max(before, after) < 150 { return .near }
    return min(before, after) > 200 ? .far : nil
  }

  var text: String {
    let machine = BenchmarkReport.Machine(processor: processors.0)
    let memory = machine.memory_bytes.map { "\($0 >> 10) kB" }
    return "\(machine.processor ?? "unknown"), \(machine.processors) processors, \(memory ?? "unknown"); Linux \(machine.kernel ?? "unknown")"
  }
}
