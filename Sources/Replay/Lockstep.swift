internal import CLinux
internal import Datapath
internal import Simulation

/// The same frame again and again, a batch on the wire, a turn of the path, a step of the guest, on one thread: what a
/// count of instructions is taken of. No clock, no chance.
///
/// `@safe`: the frame is its own, and lives as long as it does.
@safe public final class Lockstep {
  private let rig: Rig
  private let bytes: UnsafeMutableRawPointer
  private let byteCount: Int

  /// - Parameters:
  ///   - frameBytes: as captured, 14 to the MTU's largest frame.
  ///   - copies: copy every frame instead of lending.
  public init(frameBytes: Int, ringSize: Int = 1024, copies: Bool = false) throws(ReplayError) {
    precondition(frameBytes >= 14)
    var options = ReplayOptions(files: [])
    options.ringSize = ringSize
    options.mode = copies ? .copy : .auto
    rig = try Rig(options, vms: [ReplayOptions.VM(name: "vm0")], hashes: false, sinks: [:])
    byteCount = frameBytes
    unsafe bytes = .allocate(byteCount: frameBytes, alignment: 64)
    unsafe sl_fill(bytes, 0x5A, frameBytes)
    // To a unicast address, of a local experimental type.
    for (offset, value) in [0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x88, 0xB5].enumerated() {
      unsafe bytes.storeBytes(of: UInt8(value), toByteOffset: offset, as: UInt8.self)
    }
  }
  deinit { unsafe bytes.deallocate() }

  /// Frames that were lent, and copied, so far.
  public var lent: UInt64 { rig.lanes[0].counters.lentFrames }
  public var bounced: UInt64 { rig.lanes[0].counters.bouncedFrames }

  /// Moves about this many frames, in batches of 64. Answers how many reached the guest.
  public func run(frames: Int) -> UInt64 {
    let before = rig.lanes[0].counters.deliveredFrames
    let guest = rig.machines[0].guest
    // The first turn posts what the guest has made available.
    _ = turn()
    for _ in 0..<(frames + 63) / 64 {
      for _ in 0..<64 { _ = unsafe rig.card.receive(WireFrame(bytes: UnsafeRawPointer(bytes), count: byteCount), flowControl: true) }
      _ = turn()
      _ = guest.step(queue: 0)
    }
    return rig.lanes[0].counters.deliveredFrames - before
  }

  private func turn() -> Int { rig.worker.withPath(0) { turnPath(&$0) } }
}
