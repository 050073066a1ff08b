import Benchmark

/// Where a benchmark stands: one line of a terminal's standard error, redrawn. Elsewhere nothing.
struct BenchProgress {
  private let stream = StandardStream.error
  private let isOn: Bool
  private var hasDrawn = false

  init(isOn: Bool) { self.isOn = isOn && StandardStream.error.isTerminal }

  mutating func update(_ progress: BenchmarkProgress) {
    guard isOn else { return }
    stream.note(Progress.clearing + String(Self.line(progress).prefix((stream.columns ?? 80) - 1)))
    hasDrawn = true
  }

  /// Leaves the terminal as it was.
  mutating func finish() {
    if hasDrawn { stream.note(Progress.clearing) }
    hasDrawn = false
  }

  static func line(_ progress: BenchmarkProgress) -> String {
    let point = "\(progress.section.rawValue): \(progress.point.label), \(progress.point.series)"
    var parts = [rightPadded(printable(point), to: 32), "\(grouped(progress.samples)) of \(grouped(progress.of)) samples", clock(progress.elapsed) + " elapsed"]
    if progress.samples > 0, progress.of > progress.samples {
      parts.append(clock(progress.elapsed / Double(progress.samples) * Double(progress.of - progress.samples)) + " left")
    }
    return parts.joined(separator: "  ")
  }
}
