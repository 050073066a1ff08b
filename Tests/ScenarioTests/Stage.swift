import Capture
import FlowSteering
import Foundation
import Linux
import Testing

@testable import Replay

/// A folder of a test's own, gone with it.
final class TemporaryFolder {
  let path: String
  init() throws {
    path = FileManager.default.temporaryDirectory.appendingPathComponent("sluice-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }
  deinit { try? FileManager.default.removeItem(atPath: path) }
  func file(_ name: String) -> String { path + "/" + name }
}

/// Places of the package, and of what may lie beside it.
enum Place {
  static let package = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().path
  static let shared = URL(fileURLWithPath: package).deletingLastPathComponent().path + "/shared/traces"
  static var hasShared: Bool { FileManager.default.fileExists(atPath: shared + "/MANIFEST.md") }

  static func files(under folder: String) -> [String] {
    let names = FileManager.default.enumerator(atPath: folder)?.compactMap { $0 as? String } ?? []
    return names.filter { $0.contains(".pcap") || $0.hasSuffix(".cap") }.sorted().map { folder + "/" + $0 }
  }
}

/// A frame of a test: to an address, with a tag that no other frame has.
struct TaggedFrame {
  static let tagBytes = 16
  let number: UInt64
  let bytes: [UInt8]

  /// - Parameter byteCount: at least 14 and a tag.
  init(_ number: UInt64, to address: MACAddress, byteCount: Int, run: UInt64) {
    var bytes: [UInt8] = (0..<6).map { address.octet($0) } + [2, 0, 0, 0, 1, 0, 0x88, 0xB5]
    bytes += withUnsafeBytes(of: (run ^ 0xA5C3_96E1_7B2D_4F08).bigEndian, Array.init)
    bytes += withUnsafeBytes(of: number.bigEndian, Array.init)
    while bytes.count < byteCount { bytes.append(UInt8(truncatingIfNeeded: bytes.count &* 7 &+ Int(number))) }
    self.number = number
    self.bytes = Array(bytes.prefix(max(byteCount, 14 + Self.tagBytes)))
  }
}

func writeTrace(_ frames: [[UInt8]], to path: String) throws {
  var writer = try CaptureWriter(path: path)
  for (index, frame) in frames.enumerated() {
    try append(frame, UInt64(index) * 1000, to: &writer)
  }
  try writer.close()
}

private func append(_ frame: [UInt8], _ time: UInt64, to writer: inout CaptureWriter) throws {
  let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: max(frame.count, 1), alignment: 1)
  defer { copy.deallocate() }
  copy.copyBytes(from: frame)
  try writer.append(bytes: UnsafeRawBufferPointer(rebasing: copy[0..<frame.count]), timestamp: time)
}

/// A replay whose parts a test can look into.
struct Stage: ~Copyable {
  let rig: Rig
  var engine: Engine
  let options: ReplayOptions

  init(_ options: ReplayOptions, verifies: Bool = true, guest: (inout ReplayOptions) -> Void = { _ in }) throws {
    var options = options
    options.isDeterministic = true
    guest(&options)
    let vms = try Replay(options).vms
    let source = try TraceSource.open(options)
    rig = try Rig(options, vms: vms, hashes: verifies, sinks: [:])
    engine = Engine(options: options, source: source, rig: rig, verifies: verifies)
    self.options = options
  }

  consuming func run() throws -> ReplayReport {
    var run = DeterministicRun(engine, log: try EventLog(nil))
    return try run.run(until: { false }, progress: { _ in })
  }
}

/// The seed of this run of the tests: SEED=… makes it again.
let testSeed = UInt64(ProcessInfo.processInfo.environment["SEED"] ?? "") ?? UInt64.random(in: 1...999_999)

/// Fails, with the laws that do not hold, unless every frame is accounted for and compared.
func expectSound(_ report: ReplayReport, _ what: String, sourceLocation: SourceLocation = #_sourceLocation) {
  for law in report.conservation where !law.holds {
    Issue.record("\(what): \(law.name): \(law.left) ≠ \(law.right); SEED=\(report.seed)", sourceLocation: sourceLocation)
  }
  #expect(report.verified == true, "\(what): \(report.verification_errors) SEED=\(report.seed)", sourceLocation: sourceLocation)
  #expect(report.iommu.faults == 0, "\(what): \(report.iommu.first)", sourceLocation: sourceLocation)
}
