import Foundation
import Testing

/// The style as a test: what a reviewer would otherwise have to look for each time.
@Suite struct TidyTests {
  static let package = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
  static let files: [(path: String, text: String)] = {
    let root = package.path + "/Sources"
    let names = FileManager.default.enumerator(atPath: root)?.compactMap { $0 as? String } ?? []
    return names.filter { $0.hasSuffix(".swift") }.sorted().map { name in
      (name, (try? String(contentsOfFile: root + "/" + name, encoding: .utf8)) ?? "")
    }
  }()
  /// In layers, lowest first: a target imports only from layers below its own.
  static let layers: [[String]] = [
    ["CLinux", "CPcap", "CNuma", "CCrypto"], ["Linux", "FlowSteering"], ["GuestMemory", "Capture", "FlowTables", "FlowDialects"],
    ["Virtio", "Bus"], ["NIC", "VFIO", "VhostUser"], ["Datapath", "Intel", "Simulation"], ["Replay"], ["Control", "Benchmark"],
    ["ControlSocket"], ["sluice"],
  ]

  @Test func `there is something to look at`() { #expect(Self.files.count > 50) }

  @Test func `no target but the program imports Foundation`() {
    // The control socket speaks JSON, which is FoundationEssentials': the part without the database of languages.
    for file in Self.files where !file.path.hasPrefix("sluice/") {
      let text = file.path.hasPrefix("ControlSocket/") ? file.text.replacing("import FoundationEssentials\n", with: "") : file.text
      #expect(!text.contains("import Foundation"), "\(file.path)")
    }
  }

  @Test func `imports go down only`() {
    let layerOf = Dictionary(uniqueKeysWithValues: Self.layers.enumerated().flatMap { layer in layer.element.map { ($0, layer.offset) } })
    for file in Self.files {
      let target = String(file.path.prefix { $0 != "/" })
      guard let own = layerOf[target] else {
        Issue.record("\(file.path): target \(target) has no layer")
        continue
      }
      for line in file.text.split(separator: "\n") {
        let words = line.split(separator: " ")
        guard let place = words.firstIndex(of: "import"), place <= 1, place + 1 < words.count else { continue }
        guard let other = layerOf[String(words[place + 1])] else { continue }
        #expect(other < own, "\(file.path): \(target) imports \(words[place + 1])")
      }
    }
  }

  /// How many files of a target spell `unsafe`. One more is a decision, not an accident; one fewer is kept.
  static let rooms = [
    "Linux": 22, "FlowSteering": 0, "FlowTables": 0, "FlowDialects": 0, "GuestMemory": 5, "Capture": 8, "Virtio": 9, "Bus": 5, "NIC": 0, "VFIO": 4, "VhostUser": 0, "Datapath": 13,
    "Intel": 0, "Simulation": 33, "Replay": 13, "Control": 5, "Benchmark": 3, "ControlSocket": 1, "sluice": 6,
  ]

  @Test func `unsafe code stays in the few files that it has a room in`() {
    let counts = Dictionary(grouping: Self.files.filter { file in
      file.text.split(separator: "\n").contains { line in
        let code = line.range(of: "//").map { line[..<$0.lowerBound] } ?? line
        return code.contains("unsafe ")
      }
    }) { String($0.path.prefix { $0 != "/" }) }.mapValues(\.count)
    for (target, room) in Self.rooms.sorted(by: { $0.key < $1.key }) {
      let found = counts[target] ?? 0
      #expect(found == room, "\(target): \(found) files spell unsafe, and \(room) have a room for it")
    }
    #expect(Set(counts.keys).isSubset(of: Self.rooms.keys))
  }

  /// What git keeps of this checkout, or nil where it is not one: a release's archive, or git is not installed.
  static func committedPaths() -> [String]? {
    let git = Process(), output = Pipe()
    git.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    git.arguments = ["git", "-C", package.path, "ls-files", "-z"]
    git.standardOutput = output
    git.standardError = FileHandle.nullDevice
    guard (try? git.run()) != nil else { return nil }
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    git.waitUntilExit()
    return git.terminationStatus == 0 ? text.split(separator: "\0").map(String.init) : nil
  }

  @Test(.enabled("this is no checkout of git's") { committedPaths() != nil })
  func `the top level is fixed and nothing that a tool generates is committed`() throws {
    let paths = try #require(Self.committedPaths())
    let top: Set = ["Package.swift", "Sources", "Tests", "Bench", "Traces", "README.md", "LICENSE", ".ci", ".gitignore"]
    #expect(Set(paths.map { String($0.prefix { $0 != "/" }) }).subtracting(top) == [])
    let generated = ["swiftmodule", "swiftdoc", "swiftsourceinfo", "swiftdeps", "swiftinterface", "o", "a", "so", "d", "dia", "profraw", "log"]
    #expect(paths.filter { generated.contains(($0 as NSString).pathExtension) } == [])
    #expect(!paths.contains { $0.hasSuffix("Package.resolved") || $0.split(separator: "/").contains(".build") })
  }
}
