/// What a benchmark is told.
public struct BenchmarkOptions: Sendable {
  /// Traces of the user's. Empty: synthetic frames.
  public var files: [String] = []
  public var sections: [Section] = Section.allCases
  /// Seconds that each point is measured, all its samples together.
  public var secondsPerPoint = 1.0
  /// Samples of each point. Points of a section take turns: each is measured once before any is measured again.
  public var rounds = 5
  /// Bytes of payload that fit a frame of the user's traces.
  public var mtu = 1500
  /// Two processors, for the datapath and for the guests; nil: the first two that the process may use.
  public var processors: [Int]?
  /// Whether samples count that the machine disturbed.
  public var keepsNoisy = false
  /// Where the synthetic traces are left, to be replayed again; nil: they are deleted.
  public var traceFolder: String?

  /// Rounds that may be added where too many samples were set aside.
  var extraRounds: Int { rounds }
  /// The fewest samples that make a figure.
  var fewestSamples: Int { min(3, rounds) }
  var secondsPerSample: Double { secondsPerPoint / Double(max(rounds, 1)) }

  public init() {}
}
