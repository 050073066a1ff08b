/// What a plot shows: points with their spread, in series, over two axes.
public struct Plot: Sendable {
  public enum Scale: Hashable, Sendable {
    /// From zero on.
    case linear
    /// Each step between two ticks is a factor of 2, or of 10. Values are more than 0.
    case powersOfTwo, powersOfTen
    /// One place after the other; a point's value is the number of its name.
    case names([String])
  }
  /// How a tick is written.
  public enum Format: Hashable, Sendable {
    case plain
    /// With Ki, Mi and Gi.
    case binary
    /// Of nanoseconds: ns, µs, ms, s.
    case time
  }
  public struct Axis: Sendable {
    /// With its unit.
    public var title: String
    public var scale: Scale
    public var format: Format
    public init(_ title: String, _ scale: Scale, _ format: Format = .plain) { (self.title, self.scale, self.format) = (title, scale, format) }
  }
  public struct Point: Sendable {
    public var x, y: Double
    /// The lowest and the highest sample.
    public var low, high: Double
    /// Shown by who points at it.
    public var label: String
    public init(x: Double, y: Double, low: Double, high: Double, label: String = "") {
      (self.x, self.y, self.low, self.high, self.label) = (x, y, low, high, label)
    }
  }
  public struct Series: Sendable {
    public var name: String
    public var points: [Point]
    public init(_ name: String, _ points: [Point]) { (self.name, self.points) = (name, points) }
  }

  /// What is seen, in a sentence.
  public var title: String
  public var x, y: Axis
  public var series: [Series]
  /// Whether a line leads from point to point: not where the places have no order.
  public var isConnected = true
  public init(_ title: String, x: Axis, y: Axis, series: [Series]) {
    (self.title, self.x, self.y, self.series) = (title, x, y, series)
  }
}

extension Plot {
  /// Where an axis begins and ends, and what is written at it.
  struct Ticks: Equatable {
    var lowest, highest: Double
    var values: [Double]
    var labels: [String]
    var isLogarithmic = false

    /// The share of the axis that lies below a value, 0 to 1.
    func place(_ value: Double) -> Double {
      guard isLogarithmic else { return (value - lowest) / (highest - lowest) }
      return Self.logarithm(value / lowest) / Self.logarithm(highest / lowest)
    }
    /// To base 2, without a library: whole powers, and then digit by digit.
    static func logarithm(_ value: Double) -> Double {
      guard value > 0, value.isFinite else { return 0 }
      var (rest, digit, result) = (value.significand, 0.5, Double(value.exponent))
      for _ in 0..<40 {
        rest *= rest
        if rest >= 2 {
          rest /= 2
          result += digit
        }
        digit /= 2
      }
      return result
    }
  }

  static func ticks(_ axis: Axis, over values: [Double]) -> Ticks {
    let most = values.filter(\.isFinite).max() ?? 1
    switch axis.scale {
    case .names(let names):
      // Half a place of room on either side.
      return Ticks(lowest: -0.5, highest: Double(max(names.count, 1)) - 0.5, values: names.indices.map(Double.init), labels: names)
    case .linear:
      let step = step(for: most > 0 ? most : 1)
      let count = Int((max(most, step) / step).rounded(.up))
      let values = (0...count).map { Double($0) * step }
      return Ticks(lowest: 0, highest: Double(count) * step, values: values, labels: values.map { text($0, axis.format) })
    case .powersOfTwo: return powers(of: 2, axis, values)
    case .powersOfTen: return powers(of: 10, axis, values)
    }
  }

  /// 1, 2 or 5 times a power of ten: at most six of them reach `most`.
  private static func step(for most: Double) -> Double {
    var unit = 1.0
    while unit * 10 <= most / 6 { unit *= 10 }
    while unit > most / 6 { unit /= 10 }
    return ([1, 2, 5, 10].first { $0 * unit * 6 >= most } ?? 10) * unit
  }

  private static func powers(of base: Double, _ axis: Axis, _ values: [Double]) -> Ticks {
    let positive = values.filter { $0 > 0 && $0.isFinite }
    let (least, most) = (positive.min() ?? 1, positive.max() ?? base)
    var low = 1.0
    while low > least { low /= base }
    while low * base <= least { low *= base }
    var ticks = [low]
    while ticks[ticks.count - 1] < most || ticks.count < 2 { ticks.append(ticks[ticks.count - 1] * base) }
    let every = (ticks.count + 8) / 9
    let shown = ticks.enumerated().filter { $0.offset % every == 0 }.map(\.element)
    return Ticks(lowest: low, highest: ticks[ticks.count - 1], values: shown, labels: shown.map { text($0, axis.format) }, isLogarithmic: true)
  }

  // MARK: Words at ticks

  static func text(_ value: Double, _ format: Format) -> String {
    switch format {
    case .plain: number(value)
    case .binary: scaled(value, by: 1024, ["", " Ki", " Mi", " Gi"])
    case .time: scaled(value, by: 1000, [" ns", " µs", " ms", " s"])
    }
  }
  private static func scaled(_ value: Double, by factor: Double, _ units: [String]) -> String {
    var (value, unit) = (value, 0)
    while value >= factor && unit < units.count - 1 {
      value /= factor
      unit += 1
    }
    return number(value) + units[unit]
  }
  /// Without more digits than it has: at most three behind the point.
  private static func number(_ value: Double) -> String {
    let thousandths = Int((value * 1000).rounded())
    let (whole, rest) = (thousandths / 1000, thousandths % 1000)
    if rest == 0 { return "\(whole)" }
    var digits = String(1000 + rest).dropFirst()
    while digits.last == "0" { digits.removeLast() }
    return "\(whole).\(digits)"
  }
}
