internal import Glibc

/// Random numbers that a seed repeats: SplitMix64.
public struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  public init(seed: UInt64) { state = seed }

  public mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// True once in so many times.
  public mutating func once(in n: Int) -> Bool { Int.random(in: 0..<n, using: &self) == 0 }
  public mutating func int(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &self) }
  public mutating func pick<T>(_ choices: [T]) -> T { choices[Int.random(in: choices.indices, using: &self)] }
  public mutating func bytes(_ count: Int) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(count + 8)
    while result.count < count {
      var word = next()
      for _ in 0..<8 {
        result.append(UInt8(truncatingIfNeeded: word))
        word >>= 8
      }
    }
    result.removeLast(result.count - count)
    return result
  }
}

/// What a randomised test found, and how to see it again.
public struct SeedFailure: Error, CustomStringConvertible {
  public let seed: UInt64
  public let cause: any Error
  public var description: String { "\(cause)\n  again with: SEED=\(seed) swift test --filter …" }
}

/// Two things that should be the same and are not.
public struct Mismatch: Error, CustomStringConvertible {
  public let description: String
  public init(_ description: String) { self.description = description }
}

public func check(_ condition: Bool, _ text: @autoclosure () -> String) throws {
  if !condition { throw Mismatch(text()) }
}
public func check<T: Equatable>(_ found: T, is wanted: T, _ what: @autoclosure () -> String) throws {
  if found != wanted { throw Mismatch("\(what()): found \(found), wanted \(wanted)") }
}

/// Runs `body` once for each seed: 1 to `count`, or the one in SEED; SEEDS=n makes it n times as many.
public func withSeeds(_ count: Int, _ body: (inout SeededGenerator) throws -> Void) throws {
  var seeds = 1...UInt64(count)
  if let factor = environment("SEEDS") { seeds = 1...(UInt64(count) * max(factor, 1)) }
  if let seed = environment("SEED") { seeds = seed...seed }
  for seed in seeds {
    var random = SeededGenerator(seed: seed)
    do { try body(&random) } catch { throw SeedFailure(seed: seed, cause: error) }
  }
}

private func environment(_ name: String) -> UInt64? {
  guard let text = unsafe getenv(name) else { return nil }
  return UInt64(unsafe String(cString: text))
}
