/// Why a rule, or a set of rules, cannot be had.
public struct RuleError: Error, Hashable, Codable, Sendable {
  /// For programs: these words stay.
  public enum Code: String, Hashable, Codable, Sendable, CaseIterable {
    case syntax = "E_SYNTAX"
    case fieldUnsupported = "E_FIELD_UNSUPPORTED"
    case actionUnsupported = "E_ACTION_UNSUPPORTED"
    case maskConflict = "E_MASK_CONFLICT"
    case tableFull = "E_TABLE_FULL"
    case priority = "E_PRIORITY"
    case overlap = "E_OVERLAP"
    case notExclusive = "E_NOT_EXCLUSIVE"
    case duplicate = "E_DUPLICATE"
    case noSuchVM = "E_NO_SUCH_VM"
    case noSuchQueue = "E_NO_SUCH_QUEUE"
    case noSuchRule = "E_NO_SUCH_RULE"
    case refusedByCard = "E_CARD"
  }

  public var code: Code
  /// What is the matter, naming field and limit.
  public var reason: String
  /// What would do instead.
  public var fit: String?
  /// The rule at fault, as `label` names it.
  public var rule: String?
  /// The rule that stands in its way.
  public var holder: String?
  /// The field that cannot be had.
  public var field: String?
  /// Where in the text, from 1.
  public var line: Int?
  public var column: Int?

  public init(
    _ code: Code, _ reason: String, fit: String? = nil, rule: String? = nil, holder: String? = nil, field: String? = nil,
    line: Int? = nil, column: Int? = nil
  ) {
    self.code = code
    self.reason = reason
    self.fit = fit
    self.rule = rule
    self.holder = holder
    self.field = field
    self.line = line
    self.column = column
  }
}

extension RuleError: CustomStringConvertible {
  /// One line: the place, the rule, the code, the reason, and what would do.
  public var description: String {
    var place: [String] = []
    if let line { place.append("line \(line)") }
    if let column { place.append("column \(column)") }
    if let rule { place.append(rule) }
    let prefix = place.isEmpty ? "" : place.joined(separator: ", ") + ": "
    return "\(prefix)\(code.rawValue): \(reason)" + (fit.map { "; \($0)" } ?? "")
  }
}
