/// A file of rules: one a line, blank lines and comments between them.
public enum RuleFile {
  /// - Throws: what is wrong with the first line that is, with its number.
  public static func parse(_ text: String) throws(RuleError) -> [Rule] {
    var rules: [Rule] = []
    for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      let trimmed = line.drop { $0.isWhitespace }
      if trimmed.isEmpty || trimmed.hasPrefix("#") { continue }
      do throws(RuleError) { rules.append(try Rule(parsing: line)) } catch {
        var error = error
        error.line = index + 1
        throw error
      }
    }
    return rules
  }
}
