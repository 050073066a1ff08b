/// A change of state that an operator would want to know: one line of the log.
public struct LogEvent: Hashable, Sendable {
  public enum Level: String, CaseIterable, Comparable, Sendable {
    case debug, info, notice, warning, error

    public static func < (a: Level, b: Level) -> Bool { a.rank < b.rank }
    private var rank: Int {
      switch self {
      case .debug: 0
      case .info: 1
      case .notice: 2
      case .warning: 3
      case .error: 4
      }
    }
  }

  public var level: Level
  /// A fixed sentence: what varies is in `metadata`.
  public var message: String
  /// In this order: `vm`, `ring`, what else identifies it. Never anything of a guest's data.
  public var metadata: [Pair]

  public struct Pair: Hashable, Sendable {
    public var key: String
    public var value: String
    public init(key: String, value: String) {
      self.key = key
      self.value = value
    }
  }

  public init(_ level: Level, _ message: String, _ metadata: KeyValuePairs<String, String> = [:]) {
    self.level = level
    self.message = message
    self.metadata = metadata.map { Pair(key: $0.key, value: $0.value) }
  }

  /// The first value of a key.
  public subscript(key: String) -> String? { metadata.first { $0.key == key }?.value }
}
