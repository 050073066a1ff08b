import Foundation
import Testing

/// The worked examples of the article about steering, run as printed: each block of commands ends well, and prints what
/// stands below it.
extension ProgramTests {
  struct Example: Sendable, CustomTestStringConvertible {
    let heading: String
    let commands: String
    let lines: [String]
    var testDescription: String { heading }
  }

  static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  static let examples: [Example] = {
    let path = root.path + "/Sources/FlowSteering/FlowSteering.docc/Steering.md"
    let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
    return text.components(separatedBy: "\n## ").dropFirst().compactMap { section in
      func block(_ kind: String) -> String? {
        section.components(separatedBy: "```\(kind)\n").dropFirst().first?.components(separatedBy: "```").first
      }
      guard let commands = block("sh"), let output = block("text") else { return nil }
      let heading = String(section.prefix { $0 != "\n" })
      return Example(heading: heading, commands: commands, lines: output.split(separator: "\n").map(String.init))
    }
  }()

  @Test func `there are the six that are promised`() { #expect(Self.examples.count == 6) }

  @Test(arguments: examples) func `an example runs as printed`(_ example: Example) throws {
    let outcome = try shell(
      "set -e; mkdir bin; ln -s \"$0\" bin/sluice; ln -s '\(Self.root.path)/Traces' Traces; export PATH=\"$PWD/bin:$PATH\"\n\(example.commands)")
    #expect(outcome.status == 0, "\(outcome.error)")
    for line in example.lines { #expect(outcome.output.contains(line), "\(line)\nis not in\n\(outcome.output)") }
  }
}
