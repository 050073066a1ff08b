import Testing

@testable import Benchmark

/// A sample with one figure.
func sample(_ round: Int, _ value: Double, ping: Double = 95, after: Double? = nil, preempted: Bool = false) -> Sample {
  var sample = Sample(round: round)
  sample.pings = (ping, after ?? ping)
  sample.isPreempted = preempted
  sample.figures = [FigureName.datapath: value]
  return sample
}

@Suite struct JudgementTests {
  private func judgement(_ samples: [Sample], keepsNoisy: Bool = false) -> Judgement {
    Judgement(samples, keepsNoisy: keepsNoisy, fewestSamples: 3)
  }
  private func measured(_ samples: [Sample], _ judgement: Judgement, at number: Int? = 0) -> BenchmarkReport.Measured {
    var point = BenchmarkReport.Measured(series: "lent", label: "64 B", replay: "")
    judgement.judge(samples, at: number, into: &point)
    return point
  }

  @Test func `a sample in which the cores moved, or a thread waited, is set aside and counted`() throws {
    let samples = [
      sample(0, 10), sample(1, 11), sample(2, 12), sample(3, 500, ping: 95, after: 143), sample(4, 600, preempted: true),
    ]
    let point = measured(samples, judgement(samples))
    let figure = try #require(point.figures[FigureName.datapath])
    #expect(figure.median == 11 && figure.highest == 12 && figure.samples == 3)
    #expect(point.set_aside == 2 && point.other_distance == 0 && point.refused == nil)
  }

  @Test func `where every frame was dropped there is the reason, and no figure`() {
    var samples = [sample(0, 10), sample(1, 11), sample(2, 12)]
    for index in samples.indices {
      samples[index].figures[FigureName.frames] = 0
      samples[index].droppedBy = ["over_mtu": 2, "no_buffers": UInt64(index)]
    }
    let point = measured(samples, judgement(samples))
    #expect(point.figures.isEmpty && point.refused == BenchmarkReport.Measured.nothingCame)
    #expect(point.dropped == 9 && point.dropped_by == ["over_mtu": 6, "no_buffers": 3])
  }

  @Test func `with too few samples left there is a reason, and no figure`() {
    let samples = [sample(0, 10), sample(1, 11)] + (2..<5).map { sample($0, 12, preempted: true) }
    let point = measured(samples, judgement(samples))
    #expect(point.figures.isEmpty)
    #expect(point.refused == "the machine was not quiet: 2 of 5 samples left, and 3 make a figure")
    #expect(measured(samples, judgement(samples, keepsNoisy: true)).figures[FigureName.datapath]?.samples == 5)
    #expect(measured([], judgement(samples)).refused == "not measured")
  }

  @Test func `only samples of one distance are put together: that which most points have`() throws {
    let first = [sample(0, 10), sample(1, 20, ping: 490), sample(2, 20, ping: 500), sample(3, 22, ping: 480)]
    let second = [sample(0, 11), sample(1, 21, ping: 490), sample(2, 23, ping: 470), sample(3, 22, ping: 505)]
    let judgement = judgement(first + second)
    #expect(judgement.distances == [95...95, 470...505])
    let number = try #require(judgement.prevailing(in: [first, second]))
    #expect(number == 1 && judgement.name(ofDistance: 0) == "near" && judgement.name(ofDistance: 1) == "far")
    let point = measured(first, judgement, at: number)
    #expect(point.figures[FigureName.datapath]?.median == 20 && point.other_distance == 1 && point.set_aside == 0)
  }

  @Test func `of two distances with as many samples the nearer one counts`() {
    let samples = (0..<3).map { sample($0, 1) } + (3..<6).map { sample($0, 2, ping: 490) }
    #expect(judgement(samples).prevailing(in: [samples]) == 0)
  }

  @Test func `a ratio is of samples of the same round`() throws {
    let base = [sample(0, 10), sample(1, 20), sample(2, 30), sample(3, 40)]
    let other = [sample(0, 20), sample(1, 60), sample(2, 60), sample(4, 1000)]
    let ratio = try #require(judgement(base + other).ratio(other, to: base, of: FigureName.datapath, at: 0))
    #expect(ratio.median == 2 && ratio.lowest == 2 && ratio.highest == 3 && ratio.samples == 3)
    #expect(judgement(base).ratio(Array(other.prefix(2)), to: base, of: FigureName.datapath, at: 0) == nil)
  }

  @Test func `without a second core nothing is known of distances, and figures are made all the same`() {
    let samples = (0..<3).map { round in
      var sample = Sample(round: round)
      sample.figures = [FigureName.datapath: Double(round)]
      return sample
    }
    let judgement = judgement(samples)
    #expect(judgement.prevailing(in: [samples]) == nil)
    #expect(measured(samples, judgement, at: nil).figures[FigureName.datapath]?.median == 1)
  }

  @Test func `what a machine may keep from a sample is a share of it`() {
    let second = 1_000_000_000 as UInt64
    #expect(Disturbance(waited: second / 20, switches: 9999, stolen: second / 20).isSmall(in: 1), "what was waited is known")
    #expect(!Disturbance(waited: second / 20 + 1, switches: 0, stolen: 0).isSmall(in: 1))
    #expect(Disturbance(waited: nil, switches: 300, stolen: nil).isSmall(in: 1))
    #expect(!Disturbance(waited: nil, switches: 301, stolen: nil).isSmall(in: 1))
    #expect(!Disturbance(waited: 0, switches: 0, stolen: second / 20 + 1).isSmall(in: 1))
    let earlier = Disturbance(waited: nil, switches: 3, stolen: 5)
    #expect(Disturbance(waited: nil, switches: 5, stolen: 7).since(earlier, waited: 20) == Disturbance(waited: 20, switches: 2, stolen: 2))
    #expect(Disturbance(waited: nil, switches: 5, stolen: 7).since(Disturbance(waited: nil, switches: 0, stolen: nil), waited: nil).stolen == nil)
    let text = "cpu  1 2 3 4 5 6 7 42 9 10\ncpu0 1"
    #expect(Disturbance.stolen(in: text, ticksPerSecond: 100) == 420_000_000)
    #expect(Disturbance.stolen(in: "cpu  1 2", ticksPerSecond: 100) == nil)
  }
}
