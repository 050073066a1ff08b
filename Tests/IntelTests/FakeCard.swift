import Bus
import Linux
import Simulation

@testable import Intel

/// Registers that remember what was written, in order, and answer as little as a driver needs to go on. It moves no
/// frames: tests write descriptors back themselves.
@safe final class FakeCard: RegisterFile {
  private let memory: MappedRegisters
  private let mapping: Mapping
  /// Every write, in order.
  var log: [(offset: Int, value: UInt32)] = []
  /// Registers that never change from what they are.
  var stuck: Set<Int> = []
  /// What the next read of a register answers, instead of its value; then it reads 0, as a counter.
  var counters: [Int: UInt32] = [:]
  var isGone = false

  init() throws {
    mapping = try Mapping(anonymousBytes: 0x20000)
    memory = unsafe MappedRegisters(unsafe: mapping.base, byteCount: mapping.byteCount)
    memory.write(1 << 9, EEC.offset(0))
    memory.write(1 << 3 | 8 << 17, RDRXCTL.offset(0))
    memory.write(1 << 19, STATUS.offset(0))
    memory.write(.max, MPSAR.offset(0))
    memory.write(1 << 12, Self.receive(DCA_RXCTRL.self, 3))
  }

  /// Where a register of a queue lies.
  static func receive<R: Register32>(_: R.Type, _ queue: Int) -> Int { QueueKind.ixgbe.receiveBlock(queue) + R.offset(queue) }
  static func transmit<R: Register32>(_: R.Type, _ queue: Int) -> Int { QueueKind.ixgbe.transmitBlock(queue) + R.offset(queue) }

  subscript(offset: Int) -> UInt32 { memory.read(offset) }

  func read(_ offset: Int) -> UInt32 {
    if isGone { return .max }
    if let value = counters.removeValue(forKey: offset) { return value }
    return memory.read(offset)
  }

  func write(_ value: UInt32, _ offset: Int) {
    log.append((offset, value))
    if stuck.contains(offset) { return }
    switch offset {
    case CTRL.offset(0):
      memory.write(value & ~(1 << 26), offset)
      if !stuck.contains(STATUS.offset(0)) { memory.write(value & 4 == 0 ? 1 << 19 : 0, STATUS.offset(0)) }
      if value & 1 << 26 != 0 {
        for n in 0..<128 where !stuck.contains(Self.receive(RXDCTL.self, n)) { memory.write(0, Self.receive(RXDCTL.self, n)) }
        for n in 0..<128 { memory.write(0, Self.transmit(TXDCTL.self, n)) }
      }
    case RDRXCTL.offset(0): memory.write(value | 1 << 3, offset)
    case SECRXCTRL.offset(0):
      memory.write(value, offset)
      if !stuck.contains(SECRXSTAT.offset(0)) { memory.write(value >> 1 & 1, SECRXSTAT.offset(0)) }
    case FDIRCTRL.offset(0): memory.write(value | 1 << 3, offset)
    case FDIRCMD.offset(0): memory.write(value & 3 == 3 ? value & ~3 | 1 << 2 : value & ~3, offset)
    default: memory.write(value, offset)
    }
  }

  func doorbell(_ offset: Int) -> Doorbell { memory.doorbell(offset) }

  /// Positions in the log of the writes to a register.
  func positions(_ offset: Int) -> [Int] { log.indices.filter { log[$0].offset == offset } }
  /// The last value written to a register.
  func last(_ offset: Int) -> UInt32? { log.last { $0.offset == offset }?.value }
  /// Position of the last write to a register, or -1.
  func position(_ offset: Int) -> Int { positions(offset).last ?? -1 }
}

/// A driver on a fake card.
struct Bench {
  let card: FakeCard
  let iommu = SimulatedIOMMU()
  let clock = SimulatedClock()
  let device: Ixgbe

  init(_ card: FakeCard? = nil, _ configure: (inout Ixgbe.Configuration) -> Void = { _ in }) throws {
    self.card = try card ?? FakeCard()
    var configuration = Ixgbe.Configuration()
    configure(&configuration)
    device = try Ixgbe(
      registers: self.card, space: iommu, allocator: IOVAAllocator(), clock: clock, configuration: configuration)
  }

  /// Writes a receive descriptor back as the card does: length, status and errors.
  func complete(_ index: Int, queue: Int = 0, length: UInt32, status: UInt32 = 3, errors: UInt32 = 0) {
    let base = UInt64(card[FakeCard.receive(RDBAL.self, queue)]) | UInt64(card[FakeCard.receive(RDBAH.self, queue)]) << 32
    var word = UInt64(length) << 32 | UInt64(errors) << 20 | UInt64(status)
    let done = unsafe withUnsafeBytes(of: &word) {
      unsafe iommu.write(base + UInt64(16 * index + 8), from: $0.baseAddress!, count: 8)
    }
    precondition(done, "the ring is not mapped")
  }
  /// Sets DD in a transmit descriptor.
  func completeTransmit(_ index: Int, queue: Int = 0) {
    var word = descriptor(index, base: FakeCard.transmit(TDBAL.self, queue)).1 | 1 << 32
    let base = UInt64(card[FakeCard.transmit(TDBAL.self, queue)]) | UInt64(card[FakeCard.transmit(TDBAH.self, queue)]) << 32
    let done = unsafe withUnsafeBytes(of: &word) {
      unsafe iommu.write(base + UInt64(16 * index + 8), from: $0.baseAddress!, count: 8)
    }
    precondition(done, "the ring is not mapped")
  }
  /// Both halves of a descriptor as the card would read them.
  func descriptor(_ index: Int, base register: Int) -> (UInt64, UInt64) {
    let base = UInt64(card[register]) | UInt64(card[register + 4]) << 32
    var words: (UInt64, UInt64) = (0, 0)
    let done = unsafe withUnsafeMutableBytes(of: &words) {
      unsafe iommu.read(base + UInt64(16 * index), into: $0.baseAddress!, count: 16)
    }
    precondition(done, "the ring is not mapped")
    return words
  }
}
