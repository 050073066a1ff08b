// Moves frames of one size through card, path and guest in lockstep, to count the path's instructions under callgrind:
//
//     valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*turnPath*' ReceiveCost 64 100000
import ArgumentParser
import Replay

@main
struct ReceiveCost: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Moves frames of one size in lockstep; prints how many were lent, copied and delivered.")

  @Argument(help: "Bytes of each frame as captured.") var frameBytes = 60
  @Argument(help: "Frames.") var frames = 100_000
  @Flag(help: "Copy every frame instead of lending.") var copy = false

  func run() throws {
    let bench = try Lockstep(frameBytes: frameBytes, copies: copy)
    let delivered = bench.run(frames: frames)
    print("delivered \(delivered) lent \(bench.lent) bounced \(bench.bounced)")
    guard delivered > 0 else { throw ExitCode.failure }
  }
}
