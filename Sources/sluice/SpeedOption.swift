import Replay

/// `--speed`: how fast frames are put on the wire.
enum SpeedOption {
  static let forms = "original, xN (x2: twice as fast), pps=N, mbps=N, gbps=N or top"

  static func parse(_ text: String) throws(Failure) -> ReplayOptions.Pace {
    switch text {
    case "top": return .top
    case "original": return .original(multiplier: 1)
    default: break
    }
    let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    if parts.count == 2 {
      let value = Quantity.real(parts[1])
      switch parts[0] {
      case "pps": return .framesPerSecond(try positive(value, in: text, example: "pps=1.5M"))
      case "gbps": return .gigabitsPerSecond(try positive(value, in: text, example: "gbps=10"))
      case "mbps": return .gigabitsPerSecond(try positive(value, in: text, example: "mbps=250") / 1000)
      default: throw .usage("--speed", text, "no such unit \"\(parts[0])\"; units are pps, mbps, gbps")
      }
    }
    if text.hasPrefix("x") {
      return .original(multiplier: try positive(Quantity.real(text.dropFirst()), in: text, example: "x2"))
    }
    if Quantity.real(text) != nil {
      throw .usage("--speed", text, "a number of what? write pps=\(text) (frames a second), gbps=\(text) or x\(text)")
    }
    throw .usage("--speed", text, "no such speed; give \(forms)")
  }

  private static func positive(_ value: Double?, in text: String, example: String) throws(Failure) -> Double {
    guard let value, value > 0 else {
      throw .usage("--speed", text, "not a number more than 0; write it like \(example)")
    }
    return value
  }
}
