/// A plot as SVG, to stand within a page that has the colours. SVG 2, 2 "Document structure".
///
/// A series has a colour, a marker and a dash of its own: who sees no colours can tell them apart all the same. Colours are
/// the page's custom properties, so that the same text is right on light and on dark ground.
public struct SVG: CustomStringConvertible {
  static let (width, height) = (680.0, 340.0)
  /// What is left free for words around the area of the points.
  static let (left, right, top, bottom) = (70.0, 18.0, 34.0, 52.0)
  /// Of these the page has a colour each; a further series begins again.
  public static let colourCount = 5
  private static let dashes = ["", "6 3", "2 3", "9 3 2 3", "1 4"]

  private let plot: Plot
  private let x, y: Plot.Ticks

  public init(_ plot: Plot) {
    self.plot = plot
    let points = plot.series.flatMap(\.points)
    x = Plot.ticks(plot.x, over: points.map(\.x))
    y = Plot.ticks(plot.y, over: points.flatMap { [$0.y, $0.low, $0.high] })
  }

  public var description: String {
    var lines = [
      #"<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 \#(Self.text(Self.width)) \#(Self.text(Self.height))" role="img" aria-label="\#(Self.escaped(plot.title))">"#,
      "<title>\(Self.escaped(plot.title))</title>",
    ]
    lines += axes + legend
    for (index, series) in plot.series.enumerated() { lines += drawn(series, index) }
    return (lines + ["</svg>"]).joined(separator: "\n")
  }

  // MARK: Places

  /// Across, from the left.
  func across(_ value: Double) -> Double { Self.left + x.place(value) * (Self.width - Self.left - Self.right) }
  /// Down, from the top.
  func down(_ value: Double) -> Double { Self.height - Self.bottom - y.place(value) * (Self.height - Self.top - Self.bottom) }

  // MARK: Axes

  private var axes: [String] {
    let (floor, end) = (Self.height - Self.bottom, Self.width - Self.right)
    var lines: [String] = []
    for (value, label) in zip(y.values, y.labels) {
      lines.append(line("grid", Self.left, down(value), end, down(value)))
      lines.append(words("tick", Self.left - 7, down(value) + 4, label, anchor: "end"))
    }
    // Names too long for their places are cut: the table has them whole.
    let room = max(3, Int((end - Self.left) / Double(max(x.values.count, 1)) / 6.5))
    for (value, label) in zip(x.values, x.labels) {
      lines.append(line("tickmark", across(value), floor, across(value), floor + 5))
      lines.append(words("tick", across(value), floor + 18, label.count > room ? label.prefix(room - 1) + "…" : label, anchor: "middle"))
    }
    lines.append(line("axis", Self.left, floor, end, floor))
    lines.append(line("axis", Self.left, Self.top, Self.left, floor))
    lines.append(words("name", (Self.left + end) / 2, Self.height - 12, plot.x.title, anchor: "middle"))
    let middle = (Self.top + floor) / 2
    lines.append(
      #"<text class="name" transform="translate(16 \#(Self.text(middle))) rotate(-90)" text-anchor="middle">\#(Self.escaped(plot.y.title))</text>"#)
    return lines
  }

  private var legend: [String] {
    var next = Self.left
    return plot.series.enumerated().flatMap { index, series in
      defer { next += 44 + Double(series.name.count) * 7 }
      return [
        #"<g class="legend s\#(index % Self.colourCount)">"#, path(index, "M\(Self.text(next)) 16H\(Self.text(next + 26))"),
        #"<g transform="translate(\#(Self.text(next + 13)) 16)">\#(marker(index))</g>"#,
        words("entry", next + 32, 20, series.name, anchor: "start"), "</g>",
      ]
    }
  }

  // MARK: Series

  private func drawn(_ series: Plot.Series, _ index: Int) -> [String] {
    var lines = [#"<g class="series s\#(index % Self.colourCount)">"#]
    let places = series.points.map { (across($0.x), down($0.y)) }
    if plot.isConnected && places.count > 1 {
      lines.append(path(index, "M" + places.map { "\(Self.text($0.0)) \(Self.text($0.1))" }.joined(separator: "L")))
    }
    for (point, place) in zip(series.points, places) {
      let (low, high) = (down(point.low), down(point.high))
      lines.append(#"<path class="spread" d="M\#(Self.text(place.0)) \#(Self.text(low))V\#(Self.text(high))M\#(Self.text(place.0 - 4)) \#(Self.text(low))h8M\#(Self.text(place.0 - 4)) \#(Self.text(high))h8"/>"#)
      lines.append(
        #"<g class="point" transform="translate(\#(Self.text(place.0)) \#(Self.text(place.1)))">\#(marker(index))<title>\#(Self.escaped(point.label))</title></g>"#)
    }
    return lines + ["</g>"]
  }

  private func path(_ index: Int, _ data: String) -> String {
    let dash = Self.dashes[index % Self.dashes.count]
    return #"<path class="line"\#(dash.isEmpty ? "" : #" stroke-dasharray="\#(dash)""#) d="\#(data)"/>"#
  }

  /// Around 0, 0.
  private func marker(_ index: Int) -> String {
    switch index % 5 {
    case 0: #"<circle r="4.5"/>"#
    case 1: #"<rect x="-4" y="-4" width="8" height="8"/>"#
    case 2: #"<path d="M0 -5.5L5.5 4.5H-5.5Z"/>"#
    case 3: #"<path d="M0 -6L6 0L0 6L-6 0Z"/>"#
    default: #"<path class="open" d="M-4.5 -4.5L4.5 4.5M-4.5 4.5L4.5 -4.5"/>"#
    }
  }

  // MARK: Words and numbers

  private func line(_ name: String, _ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double) -> String {
    #"<line class="\#(name)" x1="\#(Self.text(x1))" y1="\#(Self.text(y1))" x2="\#(Self.text(x2))" y2="\#(Self.text(y2))"/>"#
  }
  private func words(_ name: String, _ x: Double, _ y: Double, _ text: some StringProtocol, anchor: String) -> String {
    #"<text class="\#(name)" x="\#(Self.text(x))" y="\#(Self.text(y))" text-anchor="\#(anchor)">\#(Self.escaped(String(text)))</text>"#
  }

  /// A place to a tenth.
  static func text(_ value: Double) -> String {
    let tenths = Int((value * 10).rounded())
    let magnitude = tenths.magnitude
    return (tenths < 0 ? "-" : "") + "\(magnitude / 10)" + (magnitude % 10 == 0 ? "" : ".\(magnitude % 10)")
  }

  /// Text between tags, or within quotes. What XML 1.0 cannot hold (2.2 "Characters") is replaced.
  public static func escaped(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "&": result += "&amp;"
      case "<": result += "&lt;"
      case ">": result += "&gt;"
      case "\"": result += "&quot;"
      case "'": result += "&#39;"
      case "\t", "\n": result.unicodeScalars.append(scalar)
      case _ where scalar.value < 0x20 || (0x7F...0x9F).contains(scalar.value) || [0xFFFE, 0xFFFF].contains(scalar.value): result += "\u{FFFD}"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}
