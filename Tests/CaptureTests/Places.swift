// Where test files are, and where tests may write.

import Foundation

/// The package, found from this file.
let packageRoot = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .deletingLastPathComponent()

/// Captures of others that are on some machines and not in the repository; nil where they are not.
let sharedTraces: URL? = {
  var folder = packageRoot
  while folder.path != "/" {
    folder.deleteLastPathComponent()
    let candidate = folder.appendingPathComponent("shared/traces")
    if FileManager.default.fileExists(atPath: candidate.path + "/MANIFEST.md") { return candidate }
  }
  return nil
}()

func shared(_ name: String) -> String { (sharedTraces?.path ?? "") + "/" + name }
func committed(_ name: String) -> String { packageRoot.path + "/Traces/" + name }

/// Captures of the shared folder by name, without the folder.
let sharedCaptures: [String] = {
  guard let sharedTraces else { return [] }
  let names = FileManager.default.enumerator(atPath: sharedTraces.path)?.allObjects as? [String] ?? []
  return names.filter { $0.contains("/") && !$0.hasSuffix(".py") }.sorted()
}()

/// Calls `body` with an empty folder that is gone afterwards.
func withFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
  let folder = FileManager.default.temporaryDirectory.appendingPathComponent("sluice-" + UUID().uuidString)
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  return try body(folder.path)
}

/// Reads a capture that consists of these bytes.
func reading(_ bytes: [UInt8], filter: String? = nil) throws -> Reading {
  try withFolder { folder in
    try Data(bytes).write(to: URL(fileURLWithPath: folder + "/capture"))
    return Reading(folder + "/capture", filter: filter)
  }
}

func bytes(of path: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) }
