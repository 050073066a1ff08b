import Benchmark

/// A section as plots.
enum BenchPlots {
  static func plot(of part: BenchmarkReport.Part) -> Plot? {
    guard part.points.contains(where: { !$0.figures.isEmpty }) else { return nil }
    let title = BenchWords.sentence(part)
    switch part.section {
    case .latency:
      let names = ["p50", "p90", "p99", "p99.9", "p99.99", "max"]
      let series = part.points.filter { $0.figures["p50_ns"] != nil }.map { point in
        Plot.Series("\(point.label) of the highest rate", FigureName.latencies.enumerated().compactMap { index, name in
          point.figures[name].map { place($0, x: Double(index), label: "\(point.label), \(names[index]): \(nanoseconds($0.median))") }
        })
      }
      guard !series.isEmpty else { return nil }
      return Plot(
        title, x: .init("percentile of the frames", .names(names)), y: .init("from due to seen", .powersOfTen, .time), series: series)
    case .rate:
      var plot = bySeries(part, title, y: .init("Mframes/s", .linear), figure: FigureName.frames, factor: 1e-6)
      plot.isConnected = false
      return plot
    case .size:
      return bySeries(part, title, y: .init("datapath, ns a frame", .powersOfTen), figure: FigureName.datapath)
    case .buffers:
      return bySeries(part, title, y: .init("datapath and model, ns a frame", .linear), figure: FigureName.host)
    case .vms, .queues, .rules, .ring, .memory:
      let axis = xAxis(part)
      let series = [("datapath", FigureName.datapath), ("model of the card", FigureName.model)].map { name, figure in
        Plot.Series(name, points(part, part.points, figure, isNamed: isNamed(axis)))
      }
      return Plot(title, x: axis, y: .init("ns a frame", .linear), series: series)
    }
  }

  private static func bySeries(_ part: BenchmarkReport.Part, _ title: String, y: Plot.Axis, figure: String, factor: Double = 1) -> Plot {
    let axis = xAxis(part)
    var names: [String] = []
    for point in part.points where !names.contains(point.series) { names.append(point.series) }
    let series = names.map { name in
      Plot.Series(name, points(part, part.points.filter { $0.series == name }, figure, isNamed: isNamed(axis), factor: factor))
    }
    return Plot(title, x: axis, y: y, series: series)
  }

  private static func xAxis(_ part: BenchmarkReport.Part) -> Plot.Axis {
    let quantity = part.section.quantity
    let title = quantity.unit.map { "\(quantity.name), \($0)" } ?? quantity.name
    switch part.section {
    case .size, .buffers, .memory: return .init(title, .powersOfTwo, .binary)
    case .ring: return .init(title, .powersOfTwo)
    default: return .init(title, .names(labels(part)))
    }
  }
  private static func isNamed(_ axis: Plot.Axis) -> Bool { if case .names = axis.scale { true } else { false } }
  private static func labels(_ part: BenchmarkReport.Part) -> [String] {
    var labels: [String] = []
    for point in part.points where !labels.contains(point.label) { labels.append(point.label) }
    return labels
  }

  private static func points(
    _ part: BenchmarkReport.Part, _ measured: [BenchmarkReport.Measured], _ figure: String, isNamed: Bool, factor: Double = 1
  ) -> [Plot.Point] {
    let labels = labels(part)
    return measured.compactMap { point in
      guard let value = point.figures[figure], let x = isNamed ? labels.firstIndex(of: point.label).map(Double.init) : point.x else { return nil }
      let text = "\(BenchTable.name(of: point, in: part)): \(significant(value.median * factor)) (\(significant(value.lowest * factor)) to \(significant(value.highest * factor)))"
      return place(value, x: x, factor: factor, label: text)
    }
  }
  private static func place(_ figure: Figure, x: Double, factor: Double = 1, label: String) -> Plot.Point {
    Plot.Point(x: x, y: figure.median * factor, low: figure.lowest * factor, high: figure.highest * factor, label: label)
  }
}
