import CLinux
import GuestMemory
import Simulation
import Virtio

/// A device for one receive queue, written for these tests straight from the specification: it shares nothing with the
/// driver but the guest's memory, which it has mapped a second time. It can be told to misbehave.
@safe final class TestDevice: @unchecked Sendable {
  let map: MemoryMap
  let layout: SplitRingLayout
  let features: Features
  /// The next entry of the available ring to look at.
  var lastAvailable: UInt16 = 0
  var usedIndex: UInt16 = 0
  /// Elements written but not yet shown to the driver.
  var pending: UInt16 = 0
  /// What the descriptors that it read were like, against the rules of 2.7.5.
  var complaints: [String] = []

  /// A buffer taken from the available ring.
  struct Buffer {
    let head: UInt16
    let parts: [GuestRange]
    var byteCount: Int { parts.reduce(0) { $0 + Int($1.count) } }
  }

  init(_ guest: SimulatedGuest, queue: Int = 0) throws {
    map = try guest.makeBackEndMap()
    layout = guest.layout(queue: queue)
    features = guest.features
  }

  // MARK: Guest memory

  func host(_ address: GuestAddress, _ byteCount: Int) -> UnsafeMutableRawPointer {
    for region in map.regions where address >= region.guestStart {
      let offset = Int(address.rawValue - region.guestStart.rawValue)
      if offset + byteCount <= region.byteCount { return unsafe region.base + offset }
    }
    preconditionFailure("no guest memory at \(address)")
  }
  private func at(_ start: GuestAddress, _ offset: Int) -> GuestAddress {
    GuestAddress(start.rawValue + UInt64(offset))
  }
  func load16(_ address: GuestAddress) -> UInt16 { unsafe sl_load16_acquire(host(address, 2)) }
  func load32(_ address: GuestAddress) -> UInt32 { unsafe sl_load32(host(address, 4)) }
  func load64(_ address: GuestAddress) -> UInt64 { unsafe sl_load64(host(address, 8)) }
  func store16(_ value: UInt16, _ address: GuestAddress) { unsafe sl_store16_release(host(address, 2), value) }
  func store32(_ value: UInt32, _ address: GuestAddress) { unsafe sl_store32(host(address, 4), value) }
  func store8(_ value: UInt8, _ address: GuestAddress) { unsafe sl_store8(host(address, 1), value) }
  func load8(_ address: GuestAddress) -> UInt8 { unsafe sl_load8(host(address, 1)) }

  // MARK: The ring

  var availableIndex: UInt16 { load16(at(layout.availableRing, 2)) }
  var availableCount: Int { Int(availableIndex &- lastAvailable) }
  var usedEvent: UInt16 { load16(at(layout.availableRing, 4 + 2 * layout.size)) }
  var wantsNoInterrupt: Bool { load16(layout.availableRing) & 1 != 0 }
  func setAvailableEvent(_ index: UInt16) { store16(index, at(layout.usedRing, 4 + 8 * layout.size)) }
  func setNoNotify(_ isSet: Bool) { store16(isSet ? 1 : 0, layout.usedRing) }

  /// Takes the next available buffer. 2.7.13.
  func take() -> Buffer? {
    guard availableCount > 0 else { return nil }
    let head = load16(at(layout.availableRing, 4 + 2 * (Int(lastAvailable) % layout.size)))
    lastAvailable &+= 1
    return Buffer(head: head, parts: chain(head))
  }

  private func chain(_ head: UInt16) -> [GuestRange] {
    var (table, index, size) = (layout.descriptorTable, Int(head), layout.size)
    var parts: [GuestRange] = []
    var isIndirect = false
    while parts.count <= layout.size {
      guard index < size else {
        complaints.append("descriptor \(index) of \(size)")
        return parts
      }
      let start = GuestAddress(load64(at(table, 16 * index)))
      let byteCount = load32(at(table, 16 * index + 8))
      let (flags, next) = (load16(at(table, 16 * index + 12)), load16(at(table, 16 * index + 14)))
      if flags & 4 != 0 {
        if isIndirect || flags & 1 != 0 || !features.contains(.indirectDescriptors) || byteCount % 16 != 0 {
          complaints.append("an indirect descriptor with flags \(flags) of \(byteCount) bytes")
        }
        (table, index, size, isIndirect) = (start, 0, Int(byteCount) / 16, true)
        continue
      }
      if flags & 2 == 0 || flags & ~3 != 0 || byteCount == 0 { complaints.append("a descriptor with flags \(flags) of \(byteCount) bytes") }
      _ = unsafe host(start, Int(byteCount))
      parts.append(GuestRange(start, count: byteCount))
      if flags & 1 == 0 { return parts }
      index = Int(next)
    }
    complaints.append("a chain longer than its ring")
    return parts
  }

  /// Writes an element of the used ring; the driver does not see it before `publish`. 2.7.8.
  func use(_ id: UInt32, byteCount: Int) {
    let entry = 4 + 8 * (Int(usedIndex &+ pending) % layout.size)
    store32(id, at(layout.usedRing, entry))
    store32(UInt32(byteCount), at(layout.usedRing, entry + 4))
    pending += 1
  }

  /// Shows the driver all elements written. Whether it wants to be told. 2.7.7.2.
  @discardableResult func publish() -> Bool {
    let old = usedIndex
    usedIndex &+= pending
    pending = 0
    store16(usedIndex, at(layout.usedRing, 2))
    sl_fence()
    guard features.contains(.eventIndex) else { return !wantsNoInterrupt }
    // Whether the event is one of the indices just used, one by one.
    var index = old
    while index != usedIndex {
      if index == usedEvent { return true }
      index &+= 1
    }
    return false
  }

  func setUsedIndex(_ index: UInt16) { store16(index, at(layout.usedRing, 2)) }

  // MARK: Frames

  /// The twelve bytes before a frame. 5.1.6.
  static func header(buffers: Int = 1, flags: UInt8 = 0) -> [UInt8] {
    [flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, UInt8(buffers & 0xFF), UInt8(buffers >> 8)]
  }

  /// Writes bytes into a buffer from `offset` on, over its parts.
  func write(_ bytes: ArraySlice<UInt8>, to buffer: Buffer, at offset: Int = 0) {
    var (skip, rest) = (offset, bytes)
    for part in buffer.parts where !rest.isEmpty {
      let partSkip = min(skip, Int(part.count))
      skip -= partSkip
      let count = min(Int(part.count) - partSkip, rest.count)
      let to = unsafe host(at(part.start, partSkip), count)
      unsafe rest.prefix(count).withUnsafeBytes { if count > 0 { unsafe sl_copy(to, $0.baseAddress!, count) } }
      rest = rest.dropFirst(count)
    }
    precondition(rest.isEmpty, "more bytes than the buffer has")
  }

  /// Where a buffer's byte lies.
  func address(of offset: Int, in buffer: Buffer) -> GuestAddress {
    var rest = offset
    for part in buffer.parts {
      if rest < Int(part.count) { return at(part.start, rest) }
      rest -= Int(part.count)
    }
    preconditionFailure("outside the buffer")
  }

  /// Delivers one frame as 5.1.6.4 asks, into as many buffers as it needs, without showing it. False if the driver has too few,
  /// or the frame does not fit and buffers may not be merged.
  func deliver(_ frame: [UInt8], flags: UInt8 = 0) -> Bool {
    let before = lastAvailable
    var buffers: [Buffer] = []
    var room = -12
    while room < frame.count {
      guard let buffer = take(), buffers.isEmpty || features.contains(.mergeableBuffers) else {
        lastAvailable = before
        return false
      }
      buffers.append(buffer)
      room += buffer.byteCount
    }
    var rest = (Self.header(buffers: buffers.count, flags: flags) + frame)[...]
    for buffer in buffers {
      let count = min(buffer.byteCount, rest.count)
      write(rest.prefix(count), to: buffer)
      rest = rest.dropFirst(count)
      use(UInt32(buffer.head), byteCount: count)
    }
    return true
  }
}

/// Keeps every frame.
final class KeepingSink: FrameSink {
  var frames: [[UInt8]] = []
  var flags: [FrameFlags] = []
  func receive(queue: Int, bytes: UnsafeRawBufferPointer, flags: FrameFlags) {
    frames.append(unsafe [UInt8](bytes))
    self.flags.append(flags)
  }
}

/// A frame that no other number gives.
func testFrame(_ number: Int, byteCount: Int) -> [UInt8] {
  var state = UInt64(number) &* 0x9E37_79B9_7F4A_7C15 &+ 1
  return (0..<byteCount).map { _ in
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return UInt8(truncatingIfNeeded: state >> 56)
  }
}

/// A guest that has started, and its device.
func startGuest(
  sink: (any FrameSink)? = nil, offered: Features = SimulatedGuest.understoodFeatures,
  _ change: (inout SimulatedGuest.Configuration) -> Void = { _ in }
) throws -> (SimulatedGuest, TestDevice) {
  var configuration = SimulatedGuest.Configuration()
  configuration.checksCanaries = true
  configuration.checksUnusedMemory = true
  configuration.hashesFrames = true
  change(&configuration)
  let guest = try SimulatedGuest(configuration)
  try guest.negotiate(offered: offered)
  guest.start(sink: sink)
  return (guest, try TestDevice(guest))
}

extension SHA256Stream {
  mutating func take(_ bytes: [UInt8]) { unsafe bytes.withUnsafeBytes { unsafe update($0) } }
  mutating func take(frame: [UInt8]) { unsafe frame.withUnsafeBytes { unsafe update(frame: $0) } }
}
