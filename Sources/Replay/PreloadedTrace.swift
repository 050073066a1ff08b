internal import CLinux
internal import Capture
internal import Linux
internal import Simulation

/// A frame as the wire takes it. The bytes stay where they are until the source goes on.
@unsafe struct TraceFrame {
  var wire: WireFrame
  /// Nanoseconds since the first frame of the first trace.
  var time: UInt64
}

/// Traces in memory, their headers parsed: what top speed needs.
///
/// `@safe`: frames are handed out by an index that is checked, from memory that lives as long as this.
@safe final class PreloadedTrace {
  @unsafe private struct Entry {
    var offset: Int
    var byteCount: UInt32
    var time: UInt64
    var notes: FrameNotes
  }

  private var memory: UnsafeMutableRawPointer
  private var capacity: Int
  private var used = 0
  private var entries: UnsafeMutablePointer<Entry>
  private var entryCapacity: Int
  private(set) var count = 0
  private(set) var byteCount: UInt64 = 0

  init() {
    capacity = 1 << 20
    entryCapacity = 1 << 12
    unsafe memory = .allocate(byteCount: capacity, alignment: 64)
    unsafe entries = .allocate(capacity: entryCapacity)
  }
  deinit {
    unsafe memory.deallocate()
    unsafe entries.deallocate()
  }

  func append(_ bytes: UnsafeRawBufferPointer, time: UInt64) {
    if used + bytes.count + 64 > capacity { growMemory(to: max(capacity * 2, used + bytes.count + 64)) }
    if count == entryCapacity { growEntries() }
    unsafe UnsafeMutableRawBufferPointer(start: memory + used, count: bytes.count).copyMemory(from: bytes)
    unsafe (entries + count).initialize(
      to: Entry(
        offset: used, byteCount: UInt32(bytes.count), time: time,
        notes: FrameNotes(FrameHeaders(parsing: memory + used, count: bytes.count))))
    used = (used + bytes.count + 63) & ~63
    count += 1
    byteCount += UInt64(bytes.count)
  }

  private func growMemory(to size: Int) {
    let larger = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 64)
    unsafe larger.copyMemory(from: memory, byteCount: used)
    unsafe memory.deallocate()
    unsafe memory = larger
    capacity = size
  }
  private func growEntries() {
    let larger = UnsafeMutablePointer<Entry>.allocate(capacity: entryCapacity * 2)
    unsafe larger.moveInitialize(from: entries, count: count)
    unsafe entries.deallocate()
    unsafe entries = larger
    entryCapacity *= 2
  }

  /// Precondition: `index < count`.
  func time(_ index: Int) -> UInt64 {
    precondition(index < count)
    return unsafe entries[index].time
  }
  func frame(_ index: Int) -> WireFrame {
    precondition(index < count)
    let entry = unsafe entries + index
    return unsafe WireFrame(
      bytes: UnsafeRawPointer(memory + entry.pointee.offset), count: Int(entry.pointee.byteCount),
      notes: Self.notes(of: entry))
  }

  /// They stay where they are once everything is loaded.
  private static func notes(of entry: UnsafeMutablePointer<Entry>) -> UnsafeMutablePointer<FrameNotes> {
    unsafe entry.pointer(to: \.notes)!
  }

  /// Precondition: there are these, and `burst` has room for them.
  func copy(_ range: Range<Int>, into burst: WireBurst) {
    precondition(range.lowerBound >= 0 && range.upperBound <= count && range.count <= WireBurst.capacity)
    let (memory, entries) = unsafe (memory, entries)
    for place in 0..<range.count {
      let entry = unsafe entries + range.lowerBound + place
      // What is looked at next of each: its notes begin here, and end in the next line.
      unsafe sl_prefetch(entry)
      unsafe sl_prefetch(UnsafeRawPointer(entry) + 64)
      unsafe burst[place] = WireFrame(
        bytes: UnsafeRawPointer(memory + entry.pointee.offset), count: Int(entry.pointee.byteCount), notes: Self.notes(of: entry))
    }
  }
  func byteCount(of range: Range<Int>) -> UInt64 {
    precondition(range.lowerBound >= 0 && range.upperBound <= count)
    var sum: UInt64 = 0
    for index in range { sum += unsafe UInt64(entries[index].byteCount) }
    return sum
  }
}
