import Datapath
import NIC
import Support
import Virtio

/// What a receive path should do, in plain arrays and one frame at a time; slow, and written from the outside.
final class ReferencePath {
  /// A guest buffer as the guest described it.
  struct Buffer {
    var id: UInt16
    /// Cut where regions end, without empty ones.
    var pieces: [(start: UInt64, count: Int)]
    var isCut: Bool
    var total: Int { pieces.reduce(0) { $0 + $1.count } }
    var reason: BounceReason = .tooSmall
    var isLent = false
  }
  struct Slot {
    /// Where a lent buffer's frame lands.
    var target: UInt64?
    var frame: [UInt8] = []
    var completion: Completion?
  }

  let memory: PlainMemory
  let largestFrame: Int
  let capacity: Int
  let mode: PathMode
  let merges: Bool
  let vouches: Bool
  let hostBuffers: Int
  let queueSize: Int

  var available: [Buffer] = []
  var places: [Buffer] = []
  var slots: [Slot] = []
  /// Used elements in the order of the ring.
  var used: [(id: UInt16, byteCount: Int)] = []
  var delivered: [BounceReason?: Int] = [:]
  var drops: [PathDrop: Int] = [:]
  var dropNumbers: [UInt64] = []
  var frames: UInt64 = 0
  var empties = 0
  var stopReason: StopReason?
  /// Whether the card cannot reach a guest address now.
  var refuses: (UInt64) -> Bool = { _ in false }
  /// Changes with everything that goes out or comes back.
  var moves = 0
  /// Every byte of guest memory that was written for what came back, since somebody looked.
  var touched: [(start: UInt64, count: Int)] = []
  private var isInPieces = false
  /// Turns, and in how many of them since the last new buffer there was only a hope to post; the last of those.
  private var turns = 0
  private var hopes = 0
  private var lastHoping = 0
  /// A guest that has just got something may give more in a moment. Shorter here than it is by itself.
  static let patience = 8

  init(
    memory: PlainMemory, largestFrame: Int, capacity: Int, mode: PathMode, features: Features, hostBuffers: Int,
    queueSize: Int
  ) {
    self.memory = memory
    self.largestFrame = largestFrame
    self.capacity = capacity
    self.mode = mode
    merges = features.contains(.mergeableBuffers)
    vouches = features.contains(.guestChecksum)
    self.hostBuffers = hostBuffers
    self.queueSize = queueSize
  }

  var isWaiting: Bool { places.contains { !$0.isLent } }

  // MARK: Out

  func lend() {
    if stopReason != nil { return }
    turns += 1
    var budget = min(128, available.count)
    bounce()
    while !available.isEmpty {
      if budget > 0 && slots.count < capacity { budget -= 1 } else if !isHoping { break }
      var buffer = available.removeFirst()
      moves += 1
      let target = landing(&buffer)
      if let target, tailFrames.count == tailSlots, !tailFrames.hasRest {
        if !refuses(target) {
          buffer.isLent = true
          places.append(buffer)
          slots.append(Slot(target: target))
          continue
        }
        buffer.reason = .notMapped
      }
      if mode == .required {
        stopReason = .cannotLend(buffer.reason)
        return
      }
      places.append(buffer)
      (hopes, lastHoping) = (0, 0)
      bounce()
    }
  }

  /// Where a frame would land, or why it must be copied.
  private func landing(_ buffer: inout Buffer) -> UInt64? {
    if mode == .copy {
      buffer.reason = .copyMode
      return nil
    }
    if buffer.total < 12 + largestFrame {
      buffer.reason = .tooSmall
      return nil
    }
    if buffer.isCut {
      buffer.reason = .crossesRegions
      return nil
    }
    buffer.reason = .scattered
    if buffer.pieces[0].count < 12 { return nil }
    // The addresses of the bytes behind the header, as far as they go up one by one.
    var rest = buffer.pieces
    rest[0].start += 12
    rest[0].count -= 12
    rest.removeAll { $0.count == 0 }
    var end = rest[0].start
    for piece in rest {
      if piece.start != end { break }
      end += UInt64(piece.count)
    }
    if end - rest[0].start < UInt64(largestFrame) { return nil }
    buffer.reason = .behindSmaller
    return rest[0].start
  }

  /// The buffers after the last lent one.
  private var tail: ArraySlice<Buffer> { places[((places.lastIndex { $0.isLent } ?? -1) + 1)...] }
  private var tailSlots: Int { slots.count - ((slots.lastIndex { $0.target != nil } ?? -1) + 1) }
  /// Largest frames that the tail can take for certain.
  private var tailFrames: (count: Int, hasRest: Bool) {
    if !merges { return (tail.count, false) }
    var (count, bytes) = (0, 0)
    for buffer in tail {
      bytes += buffer.total
      if bytes >= 12 + largestFrame {
        count += 1
        bytes = 0
      }
    }
    return (count, bytes > 0)
  }
  private var isHoping: Bool { tailFrames.count < tailSlots }

  /// Somebody would like the path to sleep: the next turn is the last that there is patience for.
  func endPatience() {
    if isWaiting, slots.isEmpty, tailFrames.count == 0, tailFrames.hasRest { hopes = Self.patience }
  }

  private func bounce() {
    while slots.count < capacity, isWaiting, slots.count(where: { $0.target == nil }) < hostBuffers {
      let (count, hasRest) = tailFrames
      if count <= tailSlots {
        guard count == 0, hasRest, slots.isEmpty, available.isEmpty else { return }
        if lastHoping != turns { hopes += 1 }
        lastHoping = turns
        if hopes <= Self.patience && places.count < queueSize { return }
        hopes = 0
      }
      slots.append(Slot())
      moves += 1
    }
  }

  // MARK: The card

  func receive(_ bytes: [UInt8], _ completion: Completion) {
    let n = slots.firstIndex { $0.completion == nil }!
    slots[n].frame = bytes
    slots[n].completion = completion
    if let target = slots[n].target { memory.foresee(target, bytes) }
  }

  // MARK: Back

  /// Settles what the card shows, at most one batch; answers how many completions.
  @discardableResult func settle(shown: Int) -> Int {
    let count = min(shown, 128)
    for _ in 0..<count { settleOne() }
    return count
  }

  private func settleOne() {
    let slot = slots.removeFirst()
    moves += 1
    let completion = slot.completion!
    if let target = slot.target { touched.append((target, slot.frame.count)) }
    let drop = verdict(completion)
    if slot.target != nil {
      while !places[0].isLent { returnEmpty() }
      if drop != nil || !completion.flags.contains(.isEnd) { returnEmpty() } else {
        let buffer = places.removeFirst()
        put(header(completion, 1), over: [buffer])
        used.append((buffer.id, 12 + Int(completion.byteCount)))
        delivered[nil, default: 0] += 1
      }
    } else if drop == nil && completion.flags.contains(.isEnd) {
      copy(slot, completion)
    }
    if completion.flags.contains(.isEnd) {
      if let drop { count(drop) }
      frames += 1
    }
  }

  private func copy(_ slot: Slot, _ completion: Completion) {
    let total = 12 + Int(completion.byteCount)
    var taken: [Buffer] = []
    var room = 0
    for buffer in places.prefix(while: { !$0.isLent }) where room < total && (merges || taken.isEmpty) {
      taken.append(buffer)
      room += buffer.total
    }
    guard room >= total else { return count(merges ? .insufficientBuffers : .tooLong) }
    places.removeFirst(taken.count)
    put(header(completion, taken.count) + slot.frame, over: taken)
    var left = total
    for buffer in taken {
      used.append((buffer.id, min(left, buffer.total)))
      left -= min(left, buffer.total)
    }
    delivered[taken[0].reason, default: 0] += 1
  }

  private func count(_ drop: PathDrop) {
    drops[drop, default: 0] += 1
    dropNumbers.append(frames)
  }

  private func verdict(_ completion: Completion) -> PathDrop? {
    let isEnd = completion.flags.contains(.isEnd)
    defer { isInPieces = !isEnd }
    if isInPieces || !isEnd { return .damaged }
    if completion.flags.contains(.isDamaged) { return .damaged }
    if completion.byteCount > largestFrame { return .badLength }
    return nil
  }

  private func returnEmpty() {
    used.append((places.removeFirst().id, 0))
    empties += 1
  }

  /// virtio 1.3, 5.1.6: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers.
  private func header(_ completion: Completion, _ count: Int) -> [UInt8] {
    [vouches && completion.flags.contains(.isChecksumValid) ? 2 : 0, 0] + [UInt8](repeating: 0, count: 8)
      + littleEndian(UInt64(count), 2)
  }

  private func put(_ bytes: [UInt8], over buffers: [Buffer]) {
    var done = 0
    for piece in buffers.flatMap(\.pieces) where done < bytes.count {
      let count = min(piece.count, bytes.count - done)
      memory.foresee(piece.start, Array(bytes[done..<done + count]))
      touched.append((piece.start, count))
      done += count
    }
  }
}
