import Bus
import CLinux
import CReceiveTurn
import Datapath
import GuestMemory
import Intel
import NIC
import Replay
import Simulation
import Virtio

/// Sluice's path.
///
/// `@safe`: the path lies where it was put until this goes away.
@safe final class SwiftPath: Turning {
  private let path: UnsafeMutablePointer<ReceivePath<IntelReceiveQueue>>

  init(_ machine: Machine) throws {
    unsafe path = .allocate(capacity: 1)
    unsafe path.initialize(
      to: try ReceivePath(
        layout: machine.guest.layout, features: Guest.features, base: RingBase(split: 0), window: machine.window,
        queue: try machine.startQueue(), space: machine.space, allocator: machine.allocator))
  }
  deinit {
    unsafe path.deinitialize(count: 1)
    unsafe path.deallocate()
  }

  func turn() -> Int { unsafe turnPath(&path.pointee) }

  var counts: Counts {
    let counters = unsafe path.pointee.counters
    return Counts(
      frames: counters.lentFrames, bytes: counters.lentBytes, doorbells: counters.doorbells, signals: counters.signals,
      suppressedSignals: counters.suppressedSignals, postedBuffers: counters.postedBuffers)
  }
}

/// The same in C, over the ring that a queue of the driver's was started with.
///
/// `@safe`: the queue keeps the card's ring, the map the guest's memory, and both live as long as the path.
@safe final class CPath: Turning {
  private let path: OpaquePointer
  private let regions: UnsafeMutablePointer<receive_region>
  private let window: DMAWindow
  private let queue: IntelReceiveQueue

  init(_ machine: Machine) throws {
    queue = try machine.startQueue()
    window = machine.window
    let map = machine.guest.map
    unsafe regions = .allocate(capacity: map.regions.count)
    for (number, region) in map.regions.enumerated() {
      unsafe (regions + number).initialize(
        to: receive_region(start: region.guestStart.rawValue, byte_count: UInt64(region.byteCount), host: region.base.assumingMemoryBound(to: UInt8.self)))
    }
    // RDBAL and RDBAH say where the ring is; the IOMMU, where that is here.
    let ring = UInt64(machine.card.read(0x1000)) | UInt64(machine.card.read(0x1004)) << 32
    let layout = machine.guest.layout
    var world = unsafe receive_world(
      descriptors: Self.host(layout.descriptorArea, map), available: Self.host(layout.driverArea, map),
      used: Self.host(layout.deviceArea, map), queue_size: UInt32(layout.size), regions: regions,
      region_count: UInt32(map.regions.count), window_base: window.base.rawValue,
      ring: machine.space.translate(ring, count: 16 * layout.size, access: [.read, .write])?.assumingMemoryBound(to: UInt8.self),
      ring_size: UInt32(layout.size),
      // RDT. A doorbell is the address of its register.
      tail: unsafeBitCast(machine.card.doorbell(0x1018), to: UnsafeMutableRawPointer.self),
      largest_frame: UInt32(machine.driver.largestFrame))
    guard unsafe world.ring != nil, let made = unsafe receive_path_make(&world) else { preconditionFailure("a started queue has a ring") }
    unsafe path = made
  }
  deinit {
    unsafe receive_path_free(path)
    unsafe regions.deallocate()
  }

  private static func host(_ address: GuestAddress, _ map: MemoryMap) -> UnsafeMutablePointer<UInt8>? {
    var view = MemoryView(map)
    return unsafe view.slice(GuestRange(address, count: 1))?.base.assumingMemoryBound(to: UInt8.self)
  }

  func turn() -> Int { Int(unsafe receive_turn_in_c(path)) }

  var counts: Counts {
    Counts(
      frames: unsafe receive_path_count(path, RECEIVE_LENT_FRAMES), bytes: unsafe receive_path_count(path, RECEIVE_LENT_BYTES),
      doorbells: unsafe receive_path_count(path, RECEIVE_DOORBELLS), signals: unsafe receive_path_count(path, RECEIVE_SIGNALS),
      suppressedSignals: unsafe receive_path_count(path, RECEIVE_SUPPRESSED_SIGNALS),
      postedBuffers: unsafe receive_path_count(path, RECEIVE_POSTED_BUFFERS))
  }
}
