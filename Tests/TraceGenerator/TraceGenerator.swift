// Writes the traces of Traces/ again, byte for byte, and the manifest that describes them.

import ArgumentParser
import Capture

@main struct TraceGenerator: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Writes the generated traces, and MANIFEST.json for all traces of the folder.")

  @Argument(help: "The folder, which has real.pcap in it.") var folder: String

  func run() throws {
    for trace in Trace.all { try trace.write(to: folder + "/" + trace.name) }
    try Manifest(folder: folder).write(to: folder + "/MANIFEST.json")
  }
}

extension Trace {
  /// 2023-11-14 22:13:20 UTC.
  private static let beginning: UInt64 = 1_700_000_000_000_000_000

  /// Writes the trace, its frames spaced as on a 10 Gbit/s link that is full.
  func write(to path: String) throws {
    var writer = try CaptureWriter(path: path)
    var bits: UInt64 = 0
    for frame in frames() {
      try unsafe frame.bytes.withUnsafeBytes { bytes in
        try unsafe writer.append(bytes: bytes, timestamp: Self.beginning + bits / 10)
      }
      // Frame check sequence, preamble, start delimiter and the gap between frames.
      bits += UInt64(frame.bytes.count + 4 + 7 + 1 + 12) * 8
    }
    try writer.close()
  }
}
