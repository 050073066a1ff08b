// A guest's rings as they are in its memory: neither the back-end nor the guest is asked, and both may be frozen.

import Foundation

/// The indices of a split virtqueue.
struct SplitRing: Equatable, Sendable {
  /// How many buffers the driver ever made available, modulo 2^16.
  var available: UInt16
  /// How many the device gave back.
  var used: UInt16

  /// Buffers that are the device's.
  var posted: Int { Int(available &- used) }
}

extension Machine {
  /// Where the indices of a split virtqueue of the network device are, in guest-physical memory.
  struct SplitRingPlace {
    var available: Int
    var used: Int
  }

  func splitRingPlace(_ queue: Int) throws -> SplitRingPlace {
    let device = "/machine/peripheral/net0/virtio-backend"
    // Not x-query-virtio-queue-status: that asks the back-end for the ring's base, and so stops the ring.
    guard let status = try qmp.run("x-query-virtio-vhost-queue-status", ["path": device, "queue": queue]) as? [String: Any],
      let available = status["avail-phys"] as? Int, let used = status["used-phys"] as? Int, available > 0, used > 0
    else { throw RigError("QEMU does not say where queue \(queue) is") }
    // Behind the flags. Virtio 1.2, sections 2.7.6 and 2.7.8.
    return SplitRingPlace(available: available + 2, used: used + 2)
  }

  func splitRing(at place: SplitRingPlace) throws -> SplitRing {
    func word(_ address: Int) throws -> UInt16 { try memory(at: address, count: 2).withUnsafeBytes { $0.loadUnaligned(as: UInt16.self) } }
    return SplitRing(available: try word(place.available), used: try word(place.used))
  }

  /// Bytes of guest-physical memory, from the memfd that QEMU has for it: all of it below 2 GiB, as it is there.
  func memory(at address: Int, count: Int) throws -> Data {
    let folder = "/proc/\(process.id)/fd/"
    for name in try FileManager.default.contentsOfDirectory(atPath: folder) {
      let target = (try? FileManager.default.destinationOfSymbolicLink(atPath: folder + name)) ?? ""
      guard target.hasPrefix("/memfd:memory-backend-memfd") else { continue }
      let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: folder + name))
      guard try file.seekToEnd() == UInt64(options.megabytes) << 20 else { continue }
      try file.seek(toOffset: UInt64(address))
      return try file.read(upToCount: count) ?? Data()
    }
    throw RigError("QEMU has no memfd of \(options.megabytes) MiB open")
  }
}
