/// The ticks of blocks in pairs.
struct Comparison {
  let frameBytes: Int
  let ringSize: Int
  let framesPerBlock: Int
  /// That each delivered, and their guests' memory is the same.
  var frames = 0
  private var swift: [Double] = []
  private var c: [Double] = []
  private var ratios: [Double] = []

  init(frameBytes: Int, ringSize: Int, framesPerBlock: Int) {
    (self.frameBytes, self.ringSize, self.framesPerBlock) = (frameBytes, ringSize, framesPerBlock)
  }

  mutating func add(swift a: UInt64, c b: UInt64) {
    swift.append(Double(a) / Double(framesPerBlock))
    c.append(Double(b) / Double(framesPerBlock))
    ratios.append(Double(a) / Double(b))
  }

  func words(ticksPerSecond rate: Double) -> String {
    func ns(_ ticks: [Double], _ part: Double) -> String { pad(hundredths(quantile(ticks, part) * 1e9 / rate), 7) }
    return pad("\(frameBytes)", 5) + pad("\(ringSize)", 6)
      + "          \(ns(swift, 0.2)) \(ns(swift, 0.5))         \(ns(c, 0.2)) \(ns(c, 0.5))"
      + "        \(hundredths(quantile(ratios, 0.5))) (\(hundredths(quantile(ratios, 0.25))) to \(hundredths(quantile(ratios, 0.75))))"
  }

  func json(ticksPerSecond rate: Double) -> String {
    func costs(_ ticks: [Double]) -> String {
      let values = [("lower_quintile", 0.2), ("median", 0.5)].map { name, part in
        "\"\(name)_ns\": \(hundredths(quantile(ticks, part) * 1e9 / rate))"
      }
      return "{\(values.joined(separator: ", "))}"
    }
    let parts = [("lower_quartile", 0.25), ("median", 0.5), ("upper_quartile", 0.75)].map { name, part in
      "\"\(name)\": \(quantile(ratios, part))"
    }
    return "  {\"frame_bytes\": \(frameBytes), \"ring_size\": \(ringSize), \"frames\": \(frames), \"swift\": \(costs(swift)), "
      + "\"c\": \(costs(c)), \"ratio\": {\(parts.joined(separator: ", "))}}"
  }
}

/// The value below which this part of all lies.
private func quantile(_ values: [Double], _ part: Double) -> Double {
  let sorted = values.sorted()
  return sorted[min(sorted.count - 1, Int(Double(sorted.count) * part))]
}

private func hundredths(_ value: Double) -> String {
  let number = Int(value * 100 + 0.5)
  return "\(number / 100).\(number % 100 < 10 ? "0" : "")\(number % 100)"
}

private func pad(_ text: String, _ width: Int) -> String { String(repeating: " ", count: max(0, width - text.count)) + text }
