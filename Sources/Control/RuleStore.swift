internal import FlowSteering
internal import Linux

/// Where rules that were changed while the back-end ran are kept: a file of rules in the state directory, that a restart
/// reads. Written whole beside the old one and then put in its place, so that there is always a whole one.
///
/// Its first line names what the configuration said then. If that says something else now, it was changed by a person
/// since, and goes before what is kept.
final class RuleStore: Sendable {
  let path: String
  /// The last change that was written down.
  private let saved = Mutex<UInt64>(0)
  /// Stands for the configured rules.
  private let mark: String

  init(directory: String, configured: [Rule]) {
    path = directory + "/rules"
    // FNV-1a: only to see whether it is the same text.
    let text = configured.map(\.text).joined(separator: "\n")
    let hash = text.utf8.reduce(UInt64(0xCBF2_9CE4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
    mark = "# sluice rules, kept while it ran; configured \(String(hash, radix: 16))"
  }

  /// Nil: nothing is kept, or the configuration has been changed since.
  func load() throws(ServiceError) -> [Rule]? {
    let bytes: [UInt8]?
    do throws(SystemError) { bytes = try WholeFile.read(path) } catch { throw .state("\(path): \(error)") }
    guard let bytes else { return nil }
    let text = String(decoding: bytes, as: UTF8.self)
    guard text.prefix(while: { $0 != "\n" }) == mark[...] else { return nil }
    do throws(RuleError) { return try RuleFile.parse(text) } catch {
      throw .state("\(path): \(error); remove the file, and the configured rules count")
    }
  }

  /// Called from several threads; of two changes the later one stays.
  ///
  /// - Parameter generation: grows with every change.
  func save(_ rules: [Rule], generation: UInt64) throws(SystemError) {
    try saved.withLock { last throws(SystemError) in
      guard generation > last else { return }
      try WholeFile.replace(path, with: Array((mark + "\n" + rules.map { $0.text + "\n" }.joined()).utf8))
      last = generation
    }
  }
}
