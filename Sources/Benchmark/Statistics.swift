/// What several samples of one figure come to.
public struct Figure: Sendable, Codable, Equatable {
  public var median: Double
  public var lowest: Double
  public var highest: Double
  /// The first and the third quartile: half of the samples lie between them.
  public var lower_quartile: Double
  public var upper_quartile: Double
  public var samples: Int

  /// Nil: there is no sample.
  public init?(_ values: [Double]) {
    let sorted = values.sorted()
    guard let first = sorted.first, let last = sorted.last else { return nil }
    (lowest, highest, samples) = (first, last, sorted.count)
    median = Statistics.quantile(0.5, ofSorted: sorted)
    lower_quartile = Statistics.quantile(0.25, ofSorted: sorted)
    upper_quartile = Statistics.quantile(0.75, ofSorted: sorted)
  }
}

/// What is reckoned from samples. Nothing here knows what was measured.
public enum Statistics {
  /// The value below which so much of the samples lies, 0 to 1: between the two nearest, in proportion. Precondition: there is
  /// a sample.
  public static func quantile(_ share: Double, ofSorted values: [Double]) -> Double {
    let place = share * Double(values.count - 1)
    let below = Int(place)
    let above = min(below + 1, values.count - 1)
    return values[below] + (values[above] - values[below]) * (place - Double(below))
  }

  public static func median(_ values: [Double]) -> Double? {
    values.isEmpty ? nil : quantile(0.5, ofSorted: values.sorted())
  }

  /// Puts values that lie together into a class each, the lowest class first: a new class begins where a value is more than
  /// `ratio` times the one below it.
  static func classes(_ values: [Double], ratio: Double) -> [ClosedRange<Double>] {
    var classes: [ClosedRange<Double>] = []
    for value in values.sorted() {
      if let last = classes.last, value <= last.upperBound * ratio {
        classes[classes.count - 1] = last.lowerBound...value
      } else {
        classes.append(value...value)
      }
    }
    return classes
  }

  /// Whether two values differ by more than a factor, either way.
  static func differ(_ a: Double, _ b: Double, byMoreThan ratio: Double) -> Bool {
    max(a, b) > min(a, b) * ratio
  }
}
