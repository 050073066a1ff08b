// What the language costs: Sluice's receive turn and the same turn in C, in the same world, in blocks that take turns.
// Time is taken around the turns only. To count instructions instead (Tests/Gates/instructions.sh does):
//
//     valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*turnPath*' ReceiveInC --frame-bytes 64 --ring-size 1024 --blocks 8
//     valgrind --tool=callgrind --collect-atstart=no --toggle-collect=receive_turn_in_c ReceiveInC …
import ArgumentParser
import Linux

@main
struct ReceiveInC: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures Sluice's receive turn beside the same turn in C, and checks that both did the same.")

  @Option(help: "Bytes of each frame as captured, 60 to 1514; may be given several times.") var frameBytes: [Int] = [64, 1514]
  @Option(help: "Entries of both rings, a power of two from 256; may be given several times.") var ringSize: [Int] = [1024, 256]
  @Option(help: "Blocks of each.") var blocks = 200
  @Option(help: "Turns of a block, of 64 frames each.") var turns = 64
  @Flag(help: "Print it as JSON.") var json = false

  func validate() throws {
    guard frameBytes.allSatisfy((60...1514).contains), blocks > 0, turns > 0,
      ringSize.allSatisfy({ (256...4096).contains($0) && $0 & ($0 - 1) == 0 })
    else { throw ValidationError("frames have 60 to 1514 bytes, rings a power of two of entries from 256 to 4096") }
  }

  func run() throws {
    let rate = TickCounter.measureRate()
    var lines: [String] = []
    if !json { print("bytes  ring   Swift: ns a frame, median      C: ns a frame, median   Swift : C, quartiles") }
    for ring in ringSize {
      for bytes in frameBytes {
        let result = try measure(frameBytes: bytes, ringSize: ring)
        if json { lines.append(result.json(ticksPerSecond: rate)) } else { print(result.words(ticksPerSecond: rate)) }
      }
    }
    if json { print("[\n\(lines.joined(separator: ",\n"))\n]") }
  }

  private func measure(frameBytes: Int, ringSize: Int) throws -> Comparison {
    let swift = try World<SwiftPath>(frameBytes: frameBytes, ringSize: ringSize)
    let c = try World<CPath>(frameBytes: frameBytes, ringSize: ringSize)
    var result = Comparison(frameBytes: frameBytes, ringSize: ringSize, framesPerBlock: turns * World<CPath>.batch)
    // The first of each finds nothing where it will be, and is not told.
    for block in 0...blocks {
      let (a, b) = (swift.run(turns: turns), c.run(turns: turns))
      if block > 0 { result.add(swift: a, c: b) }
    }
    let expected = (blocks + 1) * result.framesPerBlock
    guard swift.delivered == expected, c.delivered == expected else {
      throw Failure("of \(expected) frames Swift delivered \(swift.delivered), C \(c.delivered)")
    }
    guard swift.path.counts == c.path.counts else { throw Failure("Swift counted \(swift.path.counts), C \(c.path.counts)") }
    if let place = swift.machine.guest.difference(from: c.machine.guest) { throw Failure("the guests' memory differs: \(place)") }
    result.frames = expected
    return result
  }
}

struct Failure: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
