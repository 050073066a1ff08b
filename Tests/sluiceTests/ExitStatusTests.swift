import ArgumentParser
import Foundation
import Replay
import Testing

@testable import sluice

struct ExitStatusTests {
  @Test func `a good run is 0`() {
    #expect(sluice.ExitStatus(goodReport()) == .accounted)
  }

  @Test func `the gravest finding decides`() {
    var report = badReport()
    #expect(sluice.ExitStatus(report, failsOnDrop: true, signal: .interrupt) == .unaccounted)
    report.conservation = []
    #expect(sluice.ExitStatus(report, failsOnDrop: true, signal: .interrupt) == .unaccounted, "an IOMMU fault alone")
    report.iommu.faults = 0
    #expect(sluice.ExitStatus(report, failsOnDrop: true, signal: .interrupt) == .unverified)
    report.verified = nil
    #expect(sluice.ExitStatus(report, failsOnDrop: true, signal: .interrupt) == .unverified, "what a guest's driver found alone")
    report.vms["vm0"]?.violations = []
    #expect(sluice.ExitStatus(report, failsOnDrop: true, signal: .interrupt) == .stopped)
    report.vms["vm0"]?.stopped = nil
    #expect(sluice.ExitStatus(report, failsOnDrop: true, signal: .interrupt) == .unreadable)
    report.trace_error = nil
    #expect(sluice.ExitStatus(report, failsOnDrop: true, signal: .interrupt) == .interrupted)
    #expect(sluice.ExitStatus(report, failsOnDrop: true, signal: .terminate) == .terminated)
    report.interrupted = false
    #expect(sluice.ExitStatus(report, failsOnDrop: true) == .dropped)
    #expect(sluice.ExitStatus(report) == .accounted, "explained drops are accounted for")
  }

  @Test func `each error has a status and a kind of its own`() {
    let failures = [
      ReplayError.usage("a"), .unreadable("b"), .nothingSent("c"), .machine("d"),
    ].map(Failure.init)
    #expect(failures.map(\.status.rawValue) == [64, 65, 66, 71])
    #expect(failures.map(\.kind) == ["usage", "unreadable", "nothing_sent", "machine"])
    #expect(failures.map(\.message) == ["a", "b", "c", "d"])
  }

  @Test(arguments: sluice.ExitStatus.replay)
  func `the help and the README say what a status means`(status: sluice.ExitStatus) throws {
    let readme = try String(contentsOf: packageRoot.appendingPathComponent("README.md"), encoding: .utf8)
    let inReadme = readme.contains("| \(status.rawValue) | \(status.meaning) |")
    let inHelp = ReplayCommand.configuration.discussion.contains("\(status.rawValue)  \(status.meaning)")
    #expect(inReadme && inHelp)
  }

  @Test func `each command's help has its statuses, and each status is some command's`() throws {
    let tables = [
      (RunCommand.configuration, RunCommand.statuses), (InjectCommand.configuration, InjectCommand.statuses),
      (StatusCommand.configuration, ControlOptions.statuses), (StatsCommand.configuration, ControlOptions.statuses),
    ]
    var seen = Set(sluice.ExitStatus.replay)
    for (configuration, statuses) in tables {
      for (status, meaning) in statuses {
        #expect(configuration.discussion.contains(sluice.ExitStatus.table([(status, meaning)])))
        seen.insert(status)
      }
    }
    #expect(seen == Set(sluice.ExitStatus.allCases))
  }
}
