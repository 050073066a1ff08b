import Datapath
import Simulation
import Testing

@testable import Replay
@testable import sluice

struct TextReportTests {
  private func text(_ report: ReplayReport, colours: Bool = false) -> String {
    TextReport(report, status: sluice.ExitStatus(report), colours: colours).description
  }

  @Test func `a good run`() {
    #expect(
      text(goodReport()) == """
        GOOD
        """)
  }

  @Test func `a bad run`() {
    #expect(
      text(badReport()) == """
        BAD
        """)
  }

  @Test(arguments: [goodReport(), badReport()])
  func `it fits 80 columns`(report: ReplayReport) {
    for line in text(report).split(separator: "\n") { #expect(line.count <= 80, "\(line)") }
  }

  @Test(arguments: [goodReport(), badReport()])
  func `colours change nothing but the colour`(report: ReplayReport) {
    let coloured = text(report, colours: true)
    #expect(coloured.contains("\u{1B}["))
    #expect(coloured.replacing(#/\u{1B}\[[0-9;]*m/#, with: "") == text(report))
    #expect(!text(report).contains("\u{1B}"))
  }

  @Test func `the last line says what kind of well it is`() {
    var report = goodReport()
    #expect(TextReport.verdict(report, .accounted) == "All is well: all 768,000 frames were delivered, none was copied by the processor, and what was delivered is what the trace holds.")
    report.verified = nil
    report.frames.bounced = 8
    #expect(TextReport.verdict(report, .accounted) == "All is well: all 768,000 frames were delivered, 8 were copied once, and nothing was compared.")
    report.frames.lent = 0
    report.frames.dropped = 1
    report.dropped_by = ["over_mtu": 1]
    #expect(TextReport.verdict(report, .accounted) == "Every frame is accounted for, but 1 was dropped (over_mtu), each was copied once, and nothing was compared.")
    #expect(TextReport.verdict(report, .terminated).hasPrefix("Interrupted by SIGTERM; what was done is accounted for: every frame"))
    #expect(TextReport.verdict(ReplayReport(), .interrupted) == "Interrupted by SIGINT; what was done is accounted for: no frame was sent.")
  }

  @Test func `what is not well is said first`() {
    let report = badReport()
    #expect(TextReport.verdict(report, .unaccounted) == "Not well: received + replicated = delivered + dropped does not hold: 995 against 994.")
    #expect(TextReport.verdict(report, .stopped) == "Not well: VM vm0 stopped: the IOMMU refused the card access to its memory at 0x10000000000.")
    #expect(TextReport.verdict(report, .unreadable) == "Not well: a trace could not be read to its end; the 990 frames before that are accounted for.")
  }

  @Test func `a share is never rounded to all or nothing`() {
    var report = goodReport()
    (report.frames.lent, report.frames.bounced) = (767_999, 1)
    #expect(text(report).contains("> 99.99 %"))
    #expect(text(report).contains("< 0.01 %"))
  }

  @Test func `a name cannot steer the terminal`() {
    var report = badReport()
    report.files = ["a\u{1B}[2J"]
    report.trace_error = "a\u{1B}[2J: bad"
    #expect(!text(report).contains("\u{1B}"))
  }

  @Test(arguments: BounceReason.allCases)
  func `every reason to copy is explained`(reason: BounceReason) {
    #expect(ReasonText.bounced(reason.name) != nil)
  }

  @Test(arguments: PathDrop.allCases)
  func `every reason of a path to drop is explained`(reason: PathDrop) {
    #expect(ReasonText.dropped(reason.name) != nil)
  }

  @Test(arguments: CardDrop.allCases)
  func `every reason of the card to drop is explained`(reason: CardDrop) {
    #expect(ReasonText.dropped(reason.name) != nil)
  }
}
