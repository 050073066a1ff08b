import Control
import Yams

/// A configuration file, read whole: what a back-end is told, and how it logs.
struct ConfigurationFile: Equatable {
  var configuration = Configuration()
  var log = LogOptions()

  /// The largest file that is read, in bytes.
  static let largest = 1 << 20

  /// - Parameter name: the file's, for messages.
  static func parse(_ text: String, name: String) throws(ConfigurationFileError) -> ConfigurationFile {
    if let problem = YAMLStructure.problem(in: text) { throw ConfigurationFileError(name, [problem]) }
    let root: Node?
    do { root = try Yams.compose(yaml: text) } catch { throw ConfigurationFileError(name, [FileProblem(error, in: text)]) }
    guard let root else { throw ConfigurationFileError(name, [FileProblem(1, 1, "", "the file is empty")]) }
    let reader = ConfigurationReader()
    let file = reader.read(root)
    let problems = reader.problems + reader.located(file.configuration.problems() + file.configuration.problemsHere())
    guard problems.isEmpty else { throw ConfigurationFileError(name, problems) }
    return file
  }

  static func read(_ path: String) throws(Failure) -> ConfigurationFile {
    let text: String
    do { text = try TextFile.read(path, largest: largest) } catch {
      throw Failure(status: .configuration, message: "\(path): \(error.reason)")
    }
    do { return try parse(text, name: path) } catch {
      throw Failure(status: .configuration, message: error.description)
    }
  }
}

/// Everything that is wrong with a file.
struct ConfigurationFileError: Error, Equatable, CustomStringConvertible {
  let name: String
  /// In the order of the file.
  let problems: [FileProblem]

  init(_ name: String, _ problems: [FileProblem]) {
    self.name = name
    self.problems = problems.sorted { ($0.line, $0.column) < ($1.line, $1.column) }
  }

  /// Errors that are written out; a file with more was not meant to be a configuration.
  static let mostWritten = 100

  /// A line each, as compilers write them: editors know how to go there.
  var description: String {
    var lines = problems.prefix(Self.mostWritten).map { problem in
      "\(name):\(problem.line):\(problem.column): " + (problem.key.isEmpty ? "" : problem.key + ": ") + problem.reason
    }
    if problems.count == 1 { return lines[0] }
    if problems.count > lines.count { lines.append("and \(problems.count - lines.count) more") }
    return "\(name) has \(problems.count) errors\n" + lines.joined(separator: "\n")
  }
}

/// One thing that is wrong: where (lines and columns begin with 1), with which key, and why.
struct FileProblem: Equatable {
  let line: Int
  let column: Int
  let key: String
  let reason: String

  init(_ line: Int, _ column: Int, _ key: String, _ reason: String) {
    (self.line, self.column, self.key, self.reason) = (line, column, key, reason)
  }

  /// What the YAML library says of a file that is none.
  init(_ error: any Error, in text: String) {
    switch error as? YamlError {
    case .scanner(_, let problem, let mark, _)?, .parser(_, let problem, let mark, _)?, .composer(_, let problem, let mark, _)?:
      self.init(mark.line, mark.column, "", "not YAML: \(problem)")
    case .duplicatedKeysInMapping(let keys, let context)?:
      self.init(context.mark.line, context.mark.column, keys.joined(separator: ", "), "given twice")
    case .reader(let problem, let offset, _, _)?:
      let before = text.prefix(offset ?? 0)
      let lines = before.split(separator: "\n", omittingEmptySubsequences: false)
      self.init(lines.count, (lines.last?.count ?? 0) + 1, "", "not YAML: \(problem)")
    default:
      self.init(1, 1, "", "not YAML: \(error)")
    }
  }
}
