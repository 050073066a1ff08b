import Foundation
import Testing

#if canImport(FoundationXML)
  import FoundationXML
#endif

@testable import Benchmark

/// What a parser found in a document.
final class ParsedXML: NSObject, XMLParserDelegate {
  struct Element {
    let name: String
    let attributes: [String: String]
    var text = ""
  }
  private(set) var elements: [Element] = []
  private var open: [Int] = []

  init?(_ text: String) {
    super.init()
    let parser = XMLParser(data: Data(text.utf8))
    parser.delegate = self
    guard parser.parse() else { return nil }
  }
  func parser(_ parser: XMLParser, didStartElement name: String, namespaceURI: String?, qualifiedName: String?, attributes: [String: String]) {
    open.append(elements.count)
    elements.append(Element(name: name, attributes: attributes))
  }
  func parser(_ parser: XMLParser, didEndElement name: String, namespaceURI: String?, qualifiedName: String?) { open.removeLast() }
  func parser(_ parser: XMLParser, foundCharacters text: String) {
    if let last = open.last { elements[last].text += text }
  }
  func of(_ name: String, class kind: String) -> [Element] { elements.filter { $0.name == name && $0.attributes["class"] == kind } }
}

@Suite struct SVGTests {
  static let plots = [
    Plot(
      "linear", x: .init("n", .names(["a", "b", "c"])), y: .init("ns", .linear),
      series: [
        .init("lent", [.init(x: 0, y: 10, low: 9, high: 14), .init(x: 2, y: 0, low: 0, high: 1)]),
        .init("copied", [.init(x: 1, y: 99.5, low: 99, high: 101)]),
      ]),
    Plot(
      "logarithmic", x: .init("B", .powersOfTwo, .binary), y: .init("time", .powersOfTen, .time),
      series: (0..<7).map { series in
        .init("s\(series)", (0..<8).map { .init(x: Double(64 << $0), y: 100 * Double(series + 1) * Double(1 << $0), low: 90, high: 1e6) })
      }),
    Plot("empty", x: .init("B", .powersOfTwo), y: .init("ns", .linear), series: []),
    Plot("one", x: .init("B", .powersOfTwo), y: .init("ns", .powersOfTen), series: [.init("a", [.init(x: 1, y: 1, low: 1, high: 1)])]),
  ]

  @Test(arguments: plots) func `it is well-formed, and every point and bar lies in the area between the axes`(plot: Plot) throws {
    let parsed = try #require(ParsedXML(SVG(plot).description), "not well-formed")
    let points = parsed.of("g", class: "point")
    #expect(points.count == plot.series.reduce(0) { $0 + $1.points.count })
    let (across, down) = (SVG.left...SVG.width - SVG.right, SVG.top...SVG.height - SVG.bottom)
    for point in points {
      let numbers = (point.attributes["transform"] ?? "").split { !"0123456789.-".contains($0) }.compactMap { Double($0) }
      #expect(numbers.count == 2 && across.contains(numbers[0]) && down.contains(numbers[1]), "\(point.attributes)")
    }
    let svg = SVG(plot)
    for point in plot.series.flatMap(\.points) {
      #expect(down.contains(svg.down(point.low)) && down.contains(svg.down(point.high)) && across.contains(svg.across(point.x)))
    }
    #expect(parsed.of("text", class: "entry").map(\.text) == plot.series.map(\.name))
  }

  @Test func `ticks are round, and reach what there is`() {
    func ticks(_ scale: Plot.Scale, _ format: Plot.Format, _ values: [Double]) -> Plot.Ticks { Plot.ticks(.init("", scale, format), over: values) }
    #expect(ticks(.linear, .plain, [3, 101]).labels == ["0", "20", "40", "60", "80", "100", "120"])
    #expect(ticks(.linear, .plain, [0.42]).labels == ["0", "0.1", "0.2", "0.3", "0.4", "0.5"])
    #expect(ticks(.linear, .plain, [0]).highest > 0)
    #expect(ticks(.powersOfTwo, .binary, [64, 4096]).labels == ["64", "128", "256", "512", "1 Ki", "2 Ki", "4 Ki"])
    #expect(ticks(.powersOfTen, .time, [250, 3e6]).labels == ["100 ns", "1 µs", "10 µs", "100 µs", "1 ms", "10 ms"])
    #expect(ticks(.names(["x", "y"]), .plain, []).labels == ["x", "y"])
    let wide = ticks(.powersOfTwo, .plain, [1, 65536])
    #expect(wide.values.count <= 9 && wide.highest == 65536)
  }

  @Test func `a logarithm has its places`() {
    let ticks = Plot.ticks(.init("", .powersOfTen), over: [1, 10_000])
    for (value, place) in [(1, 0), (10, 0.25), (100, 0.5), (10_000, 1), (31.6227766, 0.375)] as [(Double, Double)] {
      #expect(abs(ticks.place(value) - place) < 1e-6, "\(value)")
    }
  }

  @Test func `names cannot break out of their place`() throws {
    let name = #"<script>"a" & 'b'</script>\#u{1B}[2J"#
    let plot = Plot(
      name, x: .init(name, .names([name])), y: .init(name, .linear), series: [.init(name, [.init(x: 0, y: 1, low: 1, high: 1, label: name)])])
    let text = SVG(plot).description
    #expect(!text.contains("<script"))
    let parsed = try #require(ParsedXML(text))
    let read = name.replacing("\u{1B}", with: "\u{FFFD}")
    #expect(parsed.of("text", class: "entry").first?.text == read && parsed.elements.first?.attributes["aria-label"] == read)
  }

  @Test func `series differ in more than colour`() throws {
    let lines = SVG(Self.plots[1]).description.split(separator: "\n").filter { $0.contains("class=\"legend") || $0.contains("translate(") && $0.contains("</g>") && !$0.contains("point") }
    #expect(Set(lines.map { $0.drop { $0 != ">" } }).count >= SVG.colourCount)
  }
}
