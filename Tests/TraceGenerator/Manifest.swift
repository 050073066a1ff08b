// MANIFEST.json: what is in Traces/, so that a test can tell whether it still is.

import Capture
import Foundation

/// The traces of a folder, as they are there.
struct Manifest: Codable {
  struct Entry: Codable {
    var name: String
    var sha256: String
    var frames: Int
    /// Captured bytes of all frames.
    var bytes: Int
    var linkType: Int
    var exercises: String
    var made: String
  }

  var traces: [Entry]

  init(folder: String) throws {
    traces = try Trace.all.map {
      try Entry(folder, $0.name, exercises: $0.exercises, made: "generated: swift run TraceGenerator Traces")
    }
    traces.append(
      try Entry(
        folder, "real.pcap",
        exercises: "real kernel traffic: TCP bulk, DNS-like UDP requests and answers, ping and ARP, two hosts",
        made: "captured: Tests/TraceGenerator/capture-real.sh, once; a new capture differs"))
  }

  func write(to path: String) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    try (try encoder.encode(self) + Data("\n".utf8)).write(to: URL(fileURLWithPath: path))
  }
}

extension Manifest.Entry {
  fileprivate init(_ folder: String, _ name: String, exercises: String, made: String) throws {
    let path = folder + "/" + name
    var reader = try CaptureReader(path: path)
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: CaptureReader.largestFrame, alignment: 64)
    defer { unsafe buffer.deallocate() }
    var frames = 0
    var bytes = 0
    while let frame = try unsafe reader.next(into: buffer) {
      frames += 1
      bytes += frame.capturedByteCount
    }
    self.init(
      name: name, sha256: try sha256Digest(of: path), frames: frames, bytes: bytes, linkType: 1,
      exercises: exercises, made: made)
  }
}

/// By the sha256sum tool.
func sha256Digest(of path: String) throws -> String {
  let tool = Process()
  tool.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  tool.arguments = ["sha256sum", path]
  let output = Pipe()
  tool.standardOutput = output
  try tool.run()
  let data = output.fileHandleForReading.readDataToEndOfFile()
  tool.waitUntilExit()
  return String(decoding: data.prefix(64), as: UTF8.self)
}
