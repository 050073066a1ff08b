// Numbers, times and lines as the report writes them. Pure functions; without Foundation, whose formats bring a
// database of languages into a program that has one.

/// `1234567` as `1,234,567`.
func grouped(_ number: some BinaryInteger) -> String {
  let digits = String(number.magnitude)
  var text = number < 0 ? "-" : ""
  for (index, digit) in digits.enumerated() {
    if index > 0 && (digits.count - index) % 3 == 0 { text.append(",") }
    text.append(digit)
  }
  return text
}

/// A number with so many places behind its point, rounded, grouped before it; `-` for one that there is not.
func fixed(_ number: Double, _ places: Int) -> String {
  var scale = 1.0
  for _ in 0..<places { scale *= 10 }
  let scaled = (number * scale).rounded()
  guard scaled.isFinite, scaled.magnitude < 1e18 else { return "-" }
  let whole = UInt64(scaled.magnitude)
  let sign = scaled < 0 ? "-" : ""
  guard places > 0 else { return sign + grouped(whole) }
  let rest = String(whole % UInt64(scale))
  let zeros = String(repeating: "0", count: places - rest.count)
  return sign + grouped(whole / UInt64(scale)) + "." + zeros + rest
}

/// Three significant digits, or all that stand before the point.
func significant(_ number: Double) -> String {
  switch number.magnitude {
  case ..<0.0005: number == 0 ? "0" : fixed(number, 6)
  case ..<9.995: fixed(number, 2)
  case ..<99.95: fixed(number, 1)
  default: fixed(number, 0)
  }
}

/// Bytes in the unit that leaves one to three digits before the point; decimal units.
func bytes(_ count: UInt64) -> String {
  scaled(Double(count), ["B", "kB", "MB", "GB", "TB", "PB"])
}
/// As `bytes`; "12.3 Gbit/s".
func bitRate(_ bitsPerSecond: Double) -> String {
  scaled(bitsPerSecond, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}
/// As `bytes`; "12.3 Mframes/s".
func frameRate(_ framesPerSecond: Double) -> String {
  scaled(framesPerSecond, ["frames/s", "kframes/s", "Mframes/s", "Gframes/s"])
}
/// As `bytes`; "4.10 µs".
func nanoseconds(_ count: Double) -> String { scaled(count, ["ns", "µs", "ms", "s"]) }

private func scaled(_ number: Double, _ units: [String]) -> String {
  var (value, unit) = (number, 0)
  while value.magnitude >= 999.5 && unit < units.count - 1 {
    value /= 1000
    unit += 1
  }
  let isWhole = unit == 0 && value == value.rounded()
  return (isWhole ? fixed(value, 0) : significant(value)) + " " + units[unit]
}

/// `0:07`, `12:34`, `1:02:03`.
func clock(_ seconds: Double) -> String {
  guard seconds.isFinite, seconds >= 0, seconds < 1e9 else { return "-:--" }
  let total = Int(seconds)
  func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
  let (hours, minutes) = (total / 3600, total / 60 % 60)
  return hours > 0 ? "\(hours):\(two(minutes)):\(two(total % 60))" : "\(minutes):\(two(total % 60))"
}

func plural(_ count: some BinaryInteger, _ noun: String) -> String {
  "\(grouped(count)) \(noun)\(count == 1 ? "" : "s")"
}

func leftPadded(_ text: String, to width: Int) -> String {
  String(repeating: " ", count: max(0, width - text.count)) + text
}
func rightPadded(_ text: String, to width: Int) -> String {
  text + String(repeating: " ", count: max(0, width - text.count))
}

/// Lines of at most `width` characters, broken at spaces; a longer word has a line of its own.
func wrapped(_ text: String, width: Int) -> [String] {
  var lines: [String] = []
  var line = ""
  for word in text.split(separator: " ") {
    if !line.isEmpty && line.count + 1 + word.count > width {
      lines.append(line)
      line = ""
    }
    line += line.isEmpty ? String(word) : " " + word
  }
  if !line.isEmpty { lines.append(line) }
  return lines
}

/// Lines for a person: a blank line between sections, and none for a section that has nothing to say.
func joined(_ sections: [[String]]) -> String {
  sections.filter { !$0.isEmpty }.map { $0.joined(separator: "\n") }.joined(separator: "\n\n") + "\n"
}

/// Text of others (a file's name, a filter) without what would steer a terminal.
func printable(_ text: String) -> String {
  var result = String.UnicodeScalarView()
  for scalar in text.unicodeScalars {
    let isControl = scalar.properties.generalCategory == .control && scalar != "\n"
    result.append(isControl ? "\u{FFFD}" : scalar)
  }
  return String(result)
}
