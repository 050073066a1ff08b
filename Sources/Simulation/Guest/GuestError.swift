public import GuestMemory

/// Why a simulated guest cannot be made, or cannot drive a device.
public enum GuestError: Error, Hashable, Sendable, CustomStringConvertible {
  case badQueueCount(Int)
  case badRingSize(Int)
  case badBufferSize(Int, allowed: ClosedRange<Int>)
  case badShare(Int)
  /// A buffer has more descriptors than its ring.
  case chainTooLong(descriptors: Int, ringSize: Int)
  /// Low memory would reach 3 GiB, where a PC has its devices.
  case tooMuchLowMemory(byteCount: Int)
  /// The device does not offer VIRTIO_F_VERSION_1, or the configuration does not want it.
  case noVersion1
  case memory(MemoryError)

  public var description: String {
    switch self {
    case .badQueueCount(let count): return "\(count) receive queues; from 1 to 32768 are possible"
    case .badRingSize(let size): return "a ring of \(size) entries; a power of two from 2 to 32768 is possible"
    case .badBufferSize(let size, let allowed):
      return "a buffer of \(size) bytes; this shape allows \(allowed.lowerBound) to \(allowed.upperBound)"
    case .badShare(let share): return "\(share) percent of the buffers in low memory; 0 to 100 are possible"
    case .chainTooLong(let descriptors, let size): return "buffers of \(descriptors) descriptors in a ring of \(size)"
    case .tooMuchLowMemory(let count): return "\(count) bytes of low memory; put more of the buffers in high memory"
    case .noVersion1: return "device and driver do not agree on VIRTIO_F_VERSION_1"
    case .memory(let error): return "\(error)"
    }
  }
}
