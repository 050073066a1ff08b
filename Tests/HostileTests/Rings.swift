import CLinux
import Foundation

/// Some of a guest's memory.
struct Piece: Hashable {
  var start: UInt64
  var count: UInt32
  init(_ start: UInt64, _ count: Int) {
    self.start = start
    self.count = UInt32(truncatingIfNeeded: count)
  }
}

/// Descriptor flags: virtio 1.3, 2.7.5 and 2.8.1.
enum Mark {
  static let next: UInt16 = 1, write: UInt16 = 2, indirect: UInt16 = 4, available: UInt16 = 0x80, used: UInt16 = 0x8000
}

/// What a device gave back.
struct Used: Hashable {
  var id: UInt16
  var count: UInt32
}

/// One virtqueue from the driver's side. `offer` puts a buffer in, `show` lets the device see what was put, `collect` takes
/// back what it has used.
class Ring {
  let ram: GuestRAM
  /// 0 receives, 1 sends.
  let number: Int
  let size: Int
  let isPacked: Bool
  /// Descriptors, the driver's part and the device's.
  let descriptors, driver, device: UInt64
  let kick = Handle.event(), call = Handle.event(), fault = Handle.event()
  var isReceive: Bool { number % 2 == 0 }

  fileprivate init(_ ram: GuestRAM, number: Int, size: Int, isPacked: Bool) {
    self.ram = ram
    self.number = number
    self.size = size
    self.isPacked = isPacked
    descriptors = ram.take(16 * size, alignment: 16)
    driver = ram.take(isPacked ? 4 : 6 + 2 * size, alignment: isPacked ? 4 : 2)
    device = ram.take(isPacked ? 4 : 6 + 8 * size, alignment: 4)
    for n in 0..<2 * size { ram.put64(0, descriptors + UInt64(8 * n)) }
    for n in 0..<(isPacked ? 2 : 3 + size) { ram.put16(0, driver + UInt64(2 * n)) }
    for n in 0..<(isPacked ? 2 : 3 + 4 * size) { ram.put16(0, device + UInt64(2 * n)) }
    ram.open(device, isPacked ? 4 : 6 + 8 * size)
  }

  static func make(_ ram: GuestRAM, number: Int, size: Int, isPacked: Bool) -> Ring {
    isPacked ? PackedRing(ram, number: number, size: size) : SplitRing(ram, number: number, size: size)
  }

  /// SET_VRING_BASE's word for a ring at its start: vhost-user, "Vring descriptor indices for packed virtqueues".
  var startWord: UInt32 { isPacked ? 0x8000_8000 : 0 }
  /// Every piece of what is offered has these flags besides.
  var flags: UInt16 { isReceive ? Mark.write : 0 }

  /// Descriptors that the driver may use.
  var room: Int { 0 }
  /// A buffer of these pieces, each a descriptor. Answers the driver's name for it. Precondition: there is room.
  func offer(_ pieces: [Piece], flags: [UInt16]? = nil) -> UInt16 { 0 }
  /// The same in a table at `table`, which is written here; `flags` are its descriptor's besides INDIRECT.
  func offer(_ pieces: [Piece], table: UInt64, flags: UInt16 = 0) -> UInt16 { 0 }
  func show() {}
  func collect() -> [Used] { [] }
  /// Descriptors that were offered and not given back.
  var outstanding: Int { size - room }

  func knock() { kick.raise() }
  func showAndKnock() {
    show()
    knock()
  }

  /// A table's entries: of a split ring with NEXT, of a packed one without.
  func writeTable(_ pieces: [Piece], at table: UInt64) {
    for (n, piece) in pieces.enumerated() {
      let place = table + UInt64(16 * n)
      ram.put64(piece.start, place)
      ram.put32(piece.count, place + 8)
      let isLast = n == pieces.count - 1
      ram.put16(isPacked ? 0 : flags | (isLast ? 0 : Mark.next), place + 12)
      ram.put16(isPacked ? flags : isLast ? 0 : UInt16(n + 1), place + 14)
    }
  }
}

/// virtio 1.3, 2.7.
final class SplitRing: Ring {
  private var free: [UInt16]
  private var chains: [UInt16: [UInt16]] = [:]
  /// Free-running.
  private(set) var availableIndex: UInt16
  private(set) var usedIndex: UInt16

  /// - Parameter start: where both indices are; the used index in memory too.
  init(_ ram: GuestRAM, number: Int, size: Int, start: UInt16 = 0) {
    free = (0..<size).reversed().map { UInt16($0) }
    (availableIndex, usedIndex) = (start, start)
    super.init(ram, number: number, size: size, isPacked: false)
    ram.put16(start, driver + 2)
    ram.put16(start, device + 2)
  }

  override var startWord: UInt32 { UInt32(usedIndex) }
  override var room: Int { free.count }

  func writeDescriptor(_ n: UInt16, _ start: UInt64, _ count: UInt32, _ flags: UInt16, _ next: UInt16) {
    let place = descriptors + 16 * UInt64(n)
    ram.put64(start, place)
    ram.put32(count, place + 8)
    ram.put16(flags, place + 12)
    ram.put16(next, place + 14)
  }
  func writeHead(_ head: UInt16) {
    ram.put16(head, driver + 4 + 2 * UInt64(Int(availableIndex) % size))
    availableIndex &+= 1
  }
  func move(by count: UInt16) { availableIndex &+= count }
  /// A descriptor's number that nothing else uses.
  func takeDescriptor() -> UInt16 { free.removeLast() }
  func give(_ chain: [UInt16], head: UInt16) { chains[head] = chain }

  override func offer(_ pieces: [Piece], flags: [UInt16]? = nil) -> UInt16 {
    let chain = pieces.map { _ in free.removeLast() }
    for (n, piece) in pieces.enumerated() {
      let isLast = n == pieces.count - 1
      writeDescriptor(
        chain[n], piece.start, piece.count, (flags?[n] ?? self.flags) | (isLast ? 0 : Mark.next), isLast ? 0 : chain[n + 1])
    }
    chains[chain[0]] = chain
    writeHead(chain[0])
    return chain[0]
  }

  override func offer(_ pieces: [Piece], table: UInt64, flags: UInt16 = 0) -> UInt16 {
    writeTable(pieces, at: table)
    let head = free.removeLast()
    writeDescriptor(head, table, UInt32(16 * pieces.count), Mark.indirect | flags, 0)
    chains[head] = [head]
    writeHead(head)
    return head
  }

  override func show() { ram.put16(availableIndex, driver + 2) }

  override func collect() -> [Used] {
    var result: [Used] = []
    let index = ram.load16(device + 2)
    while usedIndex != index {
      let place = device + 4 + 8 * UInt64(Int(usedIndex) % size)
      let id = ram.load32(place)
      let used = Used(id: UInt16(truncatingIfNeeded: id), count: ram.load32(place + 4))
      usedIndex &+= 1
      guard id < UInt32(size), let chain = chains.removeValue(forKey: used.id) else {
        preconditionFailure("the device gave back \(id), which it did not have")
      }
      free += chain.reversed()
      result.append(used)
    }
    return result
  }
}

/// virtio 1.3, 2.8.
final class PackedRing: Ring {
  private(set) var slot = 0
  private(set) var wrap = true
  private(set) var usedSlot = 0
  private(set) var usedWrap = true
  private var ids: [UInt16]
  private var lengths: [UInt16: Int] = [:]
  private var outCount = 0
  /// The first descriptor of what was offered and not shown: its flags come last. virtio 1.3, 2.8.17.
  private var hidden: (place: UInt64, flags: UInt16)?

  init(_ ram: GuestRAM, number: Int, size: Int) {
    ids = (0..<size).reversed().map { UInt16($0) }
    super.init(ram, number: number, size: size, isPacked: true)
  }

  override var room: Int { size - outCount }

  private func place(_ slot: Int) -> UInt64 { descriptors + 16 * UInt64(slot) }
  /// AVAIL and USED as a driver writes them in this lap.
  var lap: UInt16 { wrap ? Mark.available : Mark.used }

  /// Writes the next descriptor; the flags of the first one since `show` wait for it.
  func write(_ start: UInt64, _ count: UInt32, id: UInt16, flags: UInt16) {
    let place = place(slot)
    ram.put64(start, place)
    ram.put32(count, place + 8)
    ram.put16(id, place + 12)
    if hidden == nil { hidden = (place, flags | lap) } else { ram.put16(flags | lap, place + 14) }
    outCount += 1
    slot += 1
    if slot == size { (slot, wrap) = (0, !wrap) }
  }
  func takeID() -> UInt16 { ids.removeLast() }
  func give(_ id: UInt16, length: Int) { lengths[id] = length }

  override func offer(_ pieces: [Piece], flags: [UInt16]? = nil) -> UInt16 {
    let id = ids.removeLast()
    for (n, piece) in pieces.enumerated() {
      let isLast = n == pieces.count - 1
      // Only the last one's ID means something: virtio 1.3, 2.8.6.
      write(
        piece.start, piece.count, id: isLast ? id : 0xFFFF, flags: (flags?[n] ?? self.flags) | (isLast ? 0 : Mark.next))
    }
    lengths[id] = pieces.count
    return id
  }

  override func offer(_ pieces: [Piece], table: UInt64, flags: UInt16 = 0) -> UInt16 {
    writeTable(pieces, at: table)
    let id = ids.removeLast()
    write(table, UInt32(16 * pieces.count), id: id, flags: Mark.indirect | flags)
    lengths[id] = 1
    return id
  }

  override func show() {
    guard let hidden else { return }
    ram.put16(hidden.flags, hidden.place + 14)
    self.hidden = nil
  }

  override func collect() -> [Used] {
    var result: [Used] = []
    while outCount > 0 {
      let place = place(usedSlot)
      let word = sl_load64_acquire(ram.host(place + 8, 8))
      let flags = UInt16(truncatingIfNeeded: word >> 48)
      let isUsed = (flags & Mark.available != 0) == usedWrap && (flags & Mark.used != 0) == usedWrap
      guard isUsed else { break }
      // Its length, ID and flags are the device's to write; its address stays.
      ram.accept(place + 8, 8)
      let used = Used(id: UInt16(truncatingIfNeeded: word >> 32), count: UInt32(truncatingIfNeeded: word))
      guard let length = lengths.removeValue(forKey: used.id) else {
        preconditionFailure("the device gave back \(used.id), which it did not have")
      }
      ids.append(used.id)
      outCount -= length
      usedSlot += length
      if usedSlot >= size { (usedSlot, usedWrap) = (usedSlot - size, !usedWrap) }
      result.append(used)
    }
    return result
  }
}
