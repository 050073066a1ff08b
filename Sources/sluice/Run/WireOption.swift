import Control

/// `--wire tap=NAME`: where the card's cable leads.
enum WireOption {
  struct Refusal: Error { let reason: String }

  static func parse(_ text: String) throws(Failure) -> Configuration.Wire {
    do { return try wire(text) } catch { throw .usage("--wire", text, error.reason) }
  }

  static func wire(_ text: String) throws(Refusal) -> Configuration.Wire {
    let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts[0] == "tap", parts.count == 2 else { throw Refusal(reason: "no such wire; write tap=NAME") }
    return .tap(String(parts[1]))
  }
}
