import Control

/// `tap=NAME`, of `--wire` and `--host`.
enum WireOption {
  struct Refusal: Error { let reason: String }

  static func parse(_ option: String, _ text: String) throws(Failure) -> Configuration.Wire {
    do { return try wire(text) } catch { throw .usage(option, text, error.reason) }
  }

  static func wire(_ text: String) throws(Refusal) -> Configuration.Wire {
    let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts[0] == "tap", parts.count == 2 else { throw Refusal(reason: "no such device; write tap=NAME") }
    return .tap(String(parts[1]))
  }
}
