import Foundation
import Testing

@testable import Replay

/// What a replay makes of files that are not as they should be. What the reader itself must say of each is in
/// CaptureTests; here it is that a replay delivers what is good, says what is not, and loses nothing.
@Suite struct BadTraceTests {
  static let files = Place.files(under: Place.shared + "/derived")
    + Place.files(under: Place.shared + "/pcapplusplus").filter { $0.contains("crash") }
    + ["crash-null-deref-pcapng-shb", "crash-pcapng-epb-unbounded-length"].map { Place.shared + "/pcapplusplus/" + $0 }

  @Test(.enabled(if: Place.hasShared, "needs the shared traces beside the package"))
  func `a damaged trace gives its good frames and a named error, or one of the two`() throws {
    for file in Self.files where FileManager.default.fileExists(atPath: file) {
      for preload in [true, false] {
        var options = ReplayOptions(files: [file])
        options.preload = preload
        options.allowsTruncated = true
        do {
          let report = try Stage(options).run()
          for law in report.conservation { #expect(law.holds, "\(file): \(law.name)") }
          #expect(report.verified == true, "\(file): \(report.verification_errors)")
          #expect(report.frames.received > 0, "\(file)")
          if let error = report.trace_error { expectNamed(error, file) }
        } catch ReplayError.unreadable(let text) {
          expectNamed(text, file)
        } catch ReplayError.nothingSent(let text) {
          #expect(text.contains(file), "\(text)")
        }
      }
    }
  }

  private func expectNamed(_ text: String, _ file: String) {
    #expect(text.contains(file), "\(text)")
    #expect(text.contains("at byte ") || text.contains("empty") || text.contains("not a capture"), "\(text)")
  }

  @Test(.enabled(if: Place.hasShared, "needs the shared traces beside the package"))
  func `runts are counted, and the frame after them is delivered`() throws {
    let runts = try Stage(ReplayOptions(files: [Place.shared + "/derived/bad-runts.pcap"])).run()
    #expect(runts.dropped_by == ["runt": 13])
    let zero = try Stage(ReplayOptions(files: [Place.shared + "/derived/bad-zero-length-packets.pcap"])).run()
    #expect(zero.frames.delivered == 1)
    #expect(zero.dropped_by == ["runt": 3])
  }

  @Test(.enabled(if: Place.hasShared, "needs the shared traces beside the package"))
  func `frames whose end was not captured are left out, unless they are wanted`() throws {
    let file = Place.shared + "/derived/bad-snaplen-truncated-frames.pcap"
    var options = ReplayOptions(files: [file])
    let without = try Stage(options).run()
    options.allowsTruncated = true
    let with = try Stage(options).run()
    #expect(without.frames.skipped + without.frames.received == 14)
    #expect(without.frames.skipped > 0)
    #expect(with.frames.received == 14)
    #expect(with.frames.skipped == 0)
  }

  @Test func `a trace that is not there is an error that names it`() throws {
    do {
      _ = try Stage(ReplayOptions(files: ["/nonexistent/a.pcap"]))
      Issue.record("it was opened")
    } catch ReplayError.unreadable(let text) {
      #expect(text.contains("/nonexistent/a.pcap"))
    }
  }
}
