internal import CLinux
internal import GuestMemory
public import Linux

/// Where a packed virtqueue stands, in memory that outlives this process: a file that its owner keeps, or a part of an
/// `InflightRegion`, which the front-end keeps.
///
/// A packed virtqueue does not say how far its device has come, and no front-end knows it (a split one has its used
/// index). So whatever is given back is first written down here, then into the ring. A batch of several descriptors
/// becomes visible with the first one's flags, which are written last; whoever dies before that has spoilt the others,
/// whose lengths are no longer the driver's. Then the record is what the batch is finished from.
///
/// The order of stores: the batch's entries; the state, one word, which says from where to where and how many; the ring's
/// descriptors but the first; the first. A death between any two of them is one of two things, which the first
/// descriptor tells by itself: its USED flag is this lap's, or it is not.
///
/// **When it is believed.** A record is live from the virtqueue's start on, and until `clear`. Its owner clears it when
/// the front-end has been told where the ring stopped, and `belong` does when another guest comes. So a live record at a
/// start is one whose front-end knows less.
///
/// `@safe`: every access is inside a length that was checked. One thread. A front-end can write to its region at any
/// moment: what is kept there is read once, at a start, and then checked; what is to be published is staged elsewhere.
@safe public final class RingRecord: @unchecked Sendable {
  /// What is kept: a few fields, and behind them the entries.
  private let base: UnsafeMutableRawPointer
  /// Where a batch is put together. The entries that are kept, unless somebody else can write to those.
  private let staging: UnsafeMutableRawPointer
  private let storage: Storage
  /// The most entries that a ring may have whose record this is.
  public let capacity: Int

  private enum Storage {
    case file(File)
    /// `base` is the region's, `staging` our own.
    case region(InflightRegion)
    /// Both are our own.
    case none
  }
  private final class File {
    let mapping: Mapping
    init(_ mapping: consuming Mapping) { self.mapping = mapping }
  }

  private static let magic: UInt64 = 0x3130_4452_474E_4952  // "RINGRD01"
  private enum Field {
    static let magic = 0, size = 8, descriptorArea = 16, state = 24, guest = 32, words = 64
  }

  /// Bytes for a ring of so many entries.
  public static func byteCount(ringSize: Int) -> Int { Field.words + 10 * ringSize }

  /// - Parameter mapping: of the record's file, at least `byteCount(ringSize: 1)` bytes. Zeroes are an empty record.
  public init(mapping: consuming Mapping) {
    precondition(mapping.byteCount >= Self.byteCount(ringSize: 1))
    unsafe base = mapping.base
    unsafe staging = base + Field.words
    capacity = min((mapping.byteCount - Field.words) / 10, RingLayout.largestSize)
    storage = .file(File(mapping))
  }

  /// - Parameter base: `byteCount(ringSize: ringSize)` bytes of the region's.
  init(at base: UnsafeMutableRawPointer, of region: InflightRegion, ringSize: Int) {
    unsafe self.base = base
    unsafe staging = Self.allocate(10 * ringSize)
    capacity = ringSize
    storage = .region(region)
  }

  /// One that dies with this process: a virtqueue that nobody asked to be resumable.
  init(ringSize: Int) {
    unsafe base = Self.allocate(Self.byteCount(ringSize: ringSize))
    unsafe staging = base + Field.words
    capacity = ringSize
    storage = .none
  }

  private static func allocate(_ byteCount: Int) -> UnsafeMutableRawPointer {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 64)
    unsafe sl_fill(memory, 0, byteCount)
    return unsafe memory
  }

  deinit {
    switch storage {
    case .file: break
    case .region: unsafe staging.deallocate()
    case .none: unsafe base.deallocate()
    }
  }

  /// A batch's used descriptors, `capacity` words: length, ID and flags as they go into the ring.
  var words: UnsafeMutableRawPointer { unsafe staging }
  /// Their places in the ring, 16 bits each.
  var places: UnsafeMutableRawPointer { unsafe staging + 8 * capacity }
  var state: UnsafeMutableRawPointer { unsafe base + Field.state }

  /// The way from what is staged to what is kept, between a batch's entries and the state: no reference to count. Valid
  /// while the record lives.
  @safe struct Keeper {
    fileprivate let staging: UnsafeMutableRawPointer
    fileprivate let kept: UnsafeMutableRawPointer
    fileprivate let capacity: Int

    /// Precondition: `count <= capacity`.
    #if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
    @_noLocks
    #endif
    func keep(_ count: Int) { if unsafe staging != kept { unsafe copy(count, from: staging, to: kept) } }
    /// The other way, at a start.
    func stage(_ count: Int) { if unsafe staging != kept { unsafe copy(count, from: kept, to: staging) } }

    private func copy(_ count: Int, from source: UnsafeMutableRawPointer, to target: UnsafeMutableRawPointer) {
      unsafe target.copyMemory(from: source, byteCount: 8 * count)
      unsafe (target + 8 * capacity).copyMemory(from: source + 8 * capacity, byteCount: 2 * count)
    }
  }
  var keeper: Keeper { unsafe Keeper(staging: staging, kept: base + Field.words, capacity: capacity) }

  /// Whether a virtqueue was started with this record, and neither stopped nor given up.
  public var isLive: Bool { State(rawValue: unsafe sl_load64(state)).isLive }

  /// Says whose ring this is, before a virtqueue is started with the record: what was kept of another guest's is forgotten.
  ///
  /// - Parameter guest: a number that no other guest has had: made, say, of the device and the inode of the file that its
  ///   memory lies in, which last as long as the guest does. A guest that came by migration has another one.
  public func belong(to guest: UInt64) {
    if unsafe sl_load64(base + Field.guest) == guest { return }
    clear()
    sl_fence_release()
    unsafe sl_store64(base + Field.guest, guest)
  }

  /// Forgets where the ring stands: the front-end knows it, or it is gone.
  public func clear() { unsafe sl_store64(state, 0) }
  /// The same for a record that begins at an address, and for whose it was.
  static func clear(at base: UnsafeMutableRawPointer) {
    unsafe sl_store64(base + Field.state, 0)
    unsafe sl_store64(base + Field.magic, 0)
    unsafe sl_store64(base + Field.guest, 0)
  }

  /// Begins a ring's life, or goes on with it. Nothing is out. Answers `State.afterStraddles` of what was given back last.
  func begin(_ layout: RingLayout, at position: RingPosition) -> Bool {
    let old = State(rawValue: unsafe sl_load64(state))
    let straddles = old.isLive && old.after == position && old.afterStraddles
    // Not live while it is neither the old one nor the new.
    clear()
    sl_fence_release()
    unsafe sl_store64(base + Field.magic, Self.magic)
    unsafe sl_store64(base + Field.size, UInt64(layout.size))
    unsafe sl_store64(base + Field.descriptorArea, layout.descriptorArea.rawValue)
    sl_fence_release()
    let new = State(before: position, after: position, count: 0, beforeStraddles: straddles, afterStraddles: straddles)
    unsafe sl_store64(state, new.rawValue)
    return straddles
  }

  /// One word: the batch that is being published, or the last one that was.
  struct State {
    var rawValue: UInt64
    init(rawValue: UInt64) { self.rawValue = rawValue }
    init(before: RingPosition, after: RingPosition, count: UInt16, beforeStraddles: Bool, afterStraddles: Bool) {
      let flags: UInt64 = 1 | (beforeStraddles ? 2 : 0) | (afterStraddles ? 4 : 0)
      rawValue = UInt64(before.rawValue) | UInt64(after.rawValue) << 16 | UInt64(count) << 32 | flags << 48
    }
    var before: RingPosition { RingPosition(rawValue: UInt16(truncatingIfNeeded: rawValue)) }
    var after: RingPosition { RingPosition(rawValue: UInt16(truncatingIfNeeded: rawValue >> 16)) }
    var count: UInt16 { UInt16(truncatingIfNeeded: rawValue >> 32) }
    var isLive: Bool { rawValue >> 51 == 0 && rawValue >> 48 & 1 == 1 }
    /// The buffer that ends where this batch begins, or ends, lies across the ring's end, into a lap whose wrap counter is 1.
    var beforeStraddles: Bool { rawValue >> 49 & 1 == 1 }
    var afterStraddles: Bool { rawValue >> 50 & 1 == 1 }
  }

  // MARK: After a death

  /// Where the ring stands that this record was kept of, its last batch finished if it was not; nil if the record is not
  /// this ring's, or cannot be true of it.
  func resume(_ layout: RingLayout, in ring: borrowing PackedRingMemory) -> RingPosition? {
    let state = State(rawValue: unsafe sl_load64(state))
    guard state.isLive, layout.size <= capacity, unsafe sl_load64(base + Field.magic) == Self.magic,
      unsafe sl_load64(base + Field.size) == UInt64(layout.size),
      unsafe sl_load64(base + Field.descriptorArea) == layout.descriptorArea.rawValue,
      state.before.place < layout.size, state.after.place < layout.size, Int(state.count) <= layout.size
    else { return nil }
    keeper.stage(Int(state.count))
    if isFresh(ring, straddles: state.beforeStraddles || state.afterStraddles) { return .start }
    if state.count > 0 && Lap(ring.flags(state.before.place)) == .available(state.before.wrap) {
      guard isBatch(state, size: layout.size) else { return nil }
      finish(state, in: ring)
    }
    // What lies there is the driver's to offer. If it is used already, somebody else used it.
    return Lap(ring.flags(state.after.place)) == .used(state.after.wrap) ? nil : state.after
  }

  /// What a descriptor's AVAIL and USED flags say.
  private enum Lap: Equatable {
    case available(Bool)
    case used(Bool)
    init(_ flags: UInt16) {
      let (available, used) = (flags & PackedRingMemory.availableFlag != 0, flags & PackedRingMemory.usedFlag != 0)
      self = available == used ? .used(used) : .available(available)
    }
  }

  /// Whether the ring is at its very beginning, with nothing used: the driver has made it anew, or has not got far.
  ///
  /// In a ring that is in use, some descriptor was used, or offered again, with the wrap counter 1: one that was given back
  /// in this lap if it is an odd one, one that was not yet if it is even. So no USED flag is a ring that begins, or one
  /// that is about to begin an odd lap, which is the same place. There are two exceptions, for no device ever writes the
  /// tail of a chain. An even lap may have nothing left but such a tail: then the driver has everything, and the first
  /// place is not offered. And an odd lap may have begun with one: then the record says so, and no descriptor is empty.
  private func isFresh(_ ring: borrowing PackedRingMemory, straddles: Bool) -> Bool {
    var (someAvailable, someEmpty) = (false, false)
    for place in 0..<ring.size {
      let word = ring.wordAcquire(place)
      let flags = UInt16(truncatingIfNeeded: word >> 48)
      if flags & PackedRingMemory.usedFlag != 0 { return false }
      if flags & PackedRingMemory.availableFlag != 0 { someAvailable = true }
      if word == 0 && ring.address(place).rawValue == 0 { someEmpty = true }
    }
    if straddles && !someEmpty { return false }
    return !someAvailable || ring.flags(0) & PackedRingMemory.availableFlag != 0
  }

  /// Whether the entries are a batch of this state: each further on than the one before, none past the end.
  private func isBatch(_ state: State, size: Int) -> Bool {
    let size = UInt32(size)
    let length = state.before.distance(to: state.after, size: size)
    // A whole lap ends where it began, with the other wrap counter.
    guard length > 0, length <= size, entry(0).position == state.before else { return false }
    var reached: UInt32 = 0
    for n in 1..<max(Int(state.count), 1) {
      let position = entry(n).position
      guard position.place < size else { return false }
      let distance = state.before.distance(to: position, size: size)
      guard distance > reached, distance < length else { return false }
      reached = distance
    }
    return true
  }

  private func finish(_ state: State, in ring: borrowing PackedRingMemory) {
    for n in 1..<max(Int(state.count), 1) { ring.storeUsed(entry(n).position.place, entry(n).word) }
    ring.storeUsedRelease(entry(0).position.place, entry(0).word)
  }

  private func entry(_ n: Int) -> (position: RingPosition, word: UInt64) {
    let word = unsafe sl_load64(words + 8 * n)
    // A used descriptor's USED flag is its lap's wrap counter.
    return (RingPosition(place: unsafe sl_load16(places + 2 * n), wrap: word >> 63 == 1), word)
  }
}
