// Moves frames of one size through card, path and guest in lockstep, to count the path's instructions under callgrind:
//
//     valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*turnPath*' ReceiveCost 64 100000 --packed
import ArgumentParser
import Replay

@main
struct ReceiveCost: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Moves frames of one size in lockstep; prints how many were lent, copied and delivered.")

  @Argument(help: "Bytes of each frame as captured.") var frameBytes = 60
  @Argument(help: "Frames.") var frames = 100_000
  @Flag(help: "Copy every frame instead of lending; of a split virtqueue.") var copy = false
  @Flag(help: "With a packed virtqueue instead of a split one.") var packed = false

  func run() throws {
    let (delivered, lent, bounced) = try packed ? runPacked() : runSplit()
    print("delivered \(delivered) lent \(lent) bounced \(bounced)")
    guard delivered > 0 else { throw ExitCode.failure }
  }

  private func runSplit() throws -> (UInt64, UInt64, UInt64) {
    let bench = try Lockstep(frameBytes: frameBytes, copies: copy)
    return (bench.run(frames: frames), bench.lent, bench.bounced)
  }
  private func runPacked() throws -> (UInt64, UInt64, UInt64) {
    let bench = try PackedLockstep(frameBytes: frameBytes)
    return (bench.run(frames: frames), bench.lent, bench.bounced)
  }
}
