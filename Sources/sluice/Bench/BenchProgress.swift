import Benchmark

/// Where a benchmark stands: one line of a terminal's standard error, redrawn. Elsewhere nothing.
struct BenchProgress {
  private let isOn: Bool
  private var drawn = RedrawnLine()

  init(isOn: Bool) { self.isOn = isOn }

  mutating func update(_ progress: BenchmarkProgress) { if isOn { drawn.draw(Self.line(progress)) } }

  /// Leaves the terminal as it was.
  mutating func finish() { drawn.clear() }

  static func line(_ progress: BenchmarkProgress) -> String {
    let point = "\(progress.section.rawValue): \(progress.point.label), \(progress.point.series)"
    var parts = [rightPadded(printable(point), to: 32), "\(grouped(progress.samples)) of \(grouped(progress.of)) samples", clock(progress.elapsed) + " elapsed"]
    if progress.samples > 0, progress.of > progress.samples {
      parts.append(clock(progress.elapsed / Double(progress.samples) * Double(progress.of - progress.samples)) + " left")
    }
    return parts.joined(separator: "  ")
  }
}
