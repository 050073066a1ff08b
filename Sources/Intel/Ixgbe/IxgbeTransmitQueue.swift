public import Bus
public import NIC

/// One transmit queue of an 82599: a ring of advanced data descriptors, one frame each, and the tail register.
///
/// It is made by `Ixgbe.makeTransmitQueue` and runs after `Ixgbe.start`. As in the receive ring, one descriptor is always
/// left over. One thread at a time.
public struct IxgbeTransmitQueue: ~Copyable, TransmitQueue {
  /// The card's number of this queue.
  public let number: Int
  /// Bytes that a frame may have. Fewer than 17 can hang the card; up to 60 it pads.
  public let frameByteCounts: ClosedRange<UInt32>
  @usableFromInline let descriptors: DMABuffer
  @usableFromInline let tail: Doorbell
  @usableFromInline let size: Int
  @usableFromInline var next = 0
  @usableFromInline var oldest = 0
  @usableFromInline var outCount = 0

  private let registers: any RegisterFile
  private let clock: any Timekeeper
  private var isRunning = false

  init(
    number: Int, size: Int, largestFrame: Int, descriptors: consuming DMABuffer, registers: any RegisterFile,
    clock: any Timekeeper
  ) {
    self.number = number
    self.size = size
    frameByteCounts = 17...UInt32(largestFrame)
    self.descriptors = descriptors
    self.registers = registers
    self.clock = clock
    tail = registers.doorbell(TDT.offset(number))
  }

  deinit {
    if isRunning { try? Self.disable(number, registers, clock) }
  }

  @inlinable public var capacity: Int { size &- 1 }
  @inlinable public var room: Int { size &- 1 &- outCount }

  /// Precondition: `room > 0`, and the length is in `frameByteCounts`: check a guest's before.
  @inlinable public mutating func post(_ address: IOVA, byteCount: UInt32) {
    precondition(outCount < size &- 1, "no room in the transmit ring")
    precondition(frameByteCounts.contains(byteCount), "a frame that the card must not be given")
    let descriptor = next &* TransmitDescriptor.byteCount
    descriptors.store64(address.rawValue, descriptor)
    descriptors.store64(TransmitDescriptor.wholeFrame(byteCount), descriptor &+ 8)
    next = next &+ 1 == size ? 0 : next &+ 1
    outCount &+= 1
  }

  @inlinable public mutating func ring() { tail.ring(UInt32(truncatingIfNeeded: next)) }

  @inlinable public mutating func reap() -> Int {
    var count = 0
    while outCount > 0 {
      let word = descriptors.load64Acquire(oldest &* TransmitDescriptor.byteCount &+ 8)
      if word & TransmitDescriptor.done == 0 { break }
      oldest = oldest &+ 1 == size ? 0 : oldest &+ 1
      outCount &-= 1
      count &+= 1
    }
    return count
  }

  /// Lets the card send what it was told of, for up to 10 ms, then stops the queue. 4.6.8.
  public mutating func quiesce() throws(RegisterError) {
    guard isRunning else { return }
    // A link that is down sends nothing: those frames are forgotten.
    let rung = registers.read(TDT.self, number).rawValue
    try? registers.wait(for: TDH.self, number, within: .milliseconds(10), on: clock) { $0.rawValue == rung }
    try Self.disable(number, registers, clock)
    isRunning = false
  }

  /// Starts the queue with nothing posted. Precondition: it is not running.
  mutating func restart() throws(RegisterError) {
    precondition(!isRunning, "starts a running queue")
    (next, oldest, outCount) = (0, 0, 0)
    for offset in stride(from: 0, to: size * TransmitDescriptor.byteCount, by: 8) { descriptors.store64(0, offset) }
    let address = descriptors.address.rawValue
    registers.write(TDBAL(rawValue: UInt32(truncatingIfNeeded: address)), number)
    registers.write(TDBAH(rawValue: UInt32(address >> 32)), number)
    registers.write(TDLEN(rawValue: UInt32(size * TransmitDescriptor.byteCount)), number)
    registers.write(TDWBAL(rawValue: 0), number)
    registers.write(TDH(rawValue: 0), number)
    registers.write(TDT(rawValue: 0), number)
    var control = TXDCTL(rawValue: 0)
    control.prefetchThreshold = 32
    control.hostThreshold = 4
    control.reportThreshold = 0
    control.isEnabled = true
    registers.write(control, number)
    do throws(RegisterError) {
      try registers.wait(for: TXDCTL.self, number, within: .milliseconds(10), on: clock) { $0.isEnabled }
    } catch {
      registers.modify(TXDCTL.self, number) { $0.isEnabled = false }
      throw error
    }
    isRunning = true
  }

  private static func disable(_ n: Int, _ registers: any RegisterFile, _ clock: any Timekeeper) throws(RegisterError) {
    registers.modify(TXDCTL.self, n) { $0.isEnabled = false }
    try registers.wait(for: TXDCTL.self, n, within: .milliseconds(100), on: clock) { !$0.isEnabled }
    clock.pause(nanoseconds: 100_000)
  }
}
