/// From samples to figures: which samples count, and whether there are enough of them.
struct Judgement {
  let keepsNoisy: Bool
  let fewestSamples: Int
  /// The cores' distances that were seen, the nearest first.
  let distances: [ClosedRange<Double>]

  /// - Parameter samples: all of the run, so that a section with few knows what the others saw.
  init(_ samples: some Sequence<Sample>, keepsNoisy: Bool, fewestSamples: Int) {
    (self.keepsNoisy, self.fewestSamples) = (keepsNoisy, fewestSamples)
    let pings = samples.filter { keepsNoisy || !$0.isDisturbed }.compactMap(\.ping)
    distances = Statistics.classes(pings, ratio: Sample.largestPingRatio)
  }

  func counts(_ sample: Sample) -> Bool { keepsNoisy || !sample.isDisturbed }

  /// The number of a sample's distance. Nil: it has no ping.
  func distance(of sample: Sample) -> Int? {
    sample.ping.flatMap { ping in distances.firstIndex { $0.contains(ping) } }
  }

  func name(ofDistance number: Int) -> String {
    if distances.count == 1 { return "one" }
    return number < 2 ? ["near", "far"][number] : "farther"
  }

  /// The distance at which most points of a section have enough samples; of equals the one with more samples.
  func prevailing(in points: [[Sample]]) -> Int? {
    let ranks = distances.indices.map { number in
      let numbers = points.map { $0.count { counts($0) && distance(of: $0) == number } }
      return (enough: numbers.count { $0 >= fewestSamples }, all: numbers.reduce(0, +), number: number)
    }
    return ranks.max { ($0.enough, $0.all, $1.number) < ($1.enough, $1.all, $0.number) }?.number
  }

  /// Samples of a point that its figures are made of.
  func accepted(_ samples: [Sample], at number: Int?) -> [Sample] {
    samples.filter { counts($0) && (number == nil || distance(of: $0) == number) }
  }

  func hasEnough(_ samples: [Sample], at number: Int?) -> Bool { accepted(samples, at: number).count >= fewestSamples }

  /// Fills in what a point's samples come to.
  func judge(_ samples: [Sample], at number: Int?, into point: inout BenchmarkReport.Measured) {
    let good = accepted(samples, at: number)
    point.set_aside = samples.count { !counts($0) }
    point.other_distance = samples.count - good.count - point.set_aside
    for sample in good { point.dropped_by.merge(sample.droppedBy, uniquingKeysWith: +) }
    point.dropped = point.dropped_by.values.reduce(0, +)
    guard good.count >= fewestSamples else {
      point.refused =
        samples.isEmpty
        ? "not measured"
        : "the machine was not quiet: \(good.count) of \(samples.count) samples left, and \(fewestSamples) make a figure"
      return
    }
    guard good.contains(where: { $0.figures[FigureName.frames] != 0 }) else {
      point.refused = BenchmarkReport.Measured.nothingCame
      return
    }
    for name in Set(good.flatMap { $0.figures.keys }) {
      let values = good.compactMap { $0.figures[name] }
      // A percentile that only some samples had frames enough for is none.
      if values.count >= fewestSamples { point.figures[name] = Figure(values) }
    }
  }

  /// Of one figure of two points, round by round.
  func ratio(_ samples: [Sample], to base: [Sample], of figure: String, at number: Int?) -> Figure? {
    let bases = accepted(base, at: number)
    let ratios = accepted(samples, at: number).compactMap { sample -> Double? in
      guard let value = sample.figures[figure], let other = bases.first(where: { $0.round == sample.round })?.figures[figure], other > 0
      else { return nil }
      return value / other
    }
    return ratios.count >= fewestSamples ? Figure(ratios) : nil
  }
}
