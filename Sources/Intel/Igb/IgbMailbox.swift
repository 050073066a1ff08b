internal import Bus
internal import FlowSteering

/// The mailbox of a virtual function: sixteen words that either side writes while it holds them, and flags. What words
/// mean is the drivers' to agree on; these are Linux's (igb, igbvf), which other systems follow.
final class IgbMailbox {
  private let registers: any RegisterFile
  private let clock: any Timekeeper
  /// Flags that a read of the register has cleared, and nobody has looked at.
  private var seen: UInt32 = 0

  init(_ registers: any RegisterFile, _ clock: any Timekeeper) { (self.registers, self.clock) = (registers, clock) }

  enum Question {
    case reset
    case setAddress(MACAddress)
    case setAllMulticast(Bool)
    /// Without the check sequence.
    case setLargestFrame(UInt32)

    fileprivate var words: [UInt32] {
      switch self {
      case .reset: [0x01]
      case .setAddress(let address):
        [
          0x02, (0..<4).reduce(0) { $0 | UInt32(address.octet($1)) << UInt32(8 * $1) }, UInt32(address.octet(4)) | UInt32(address.octet(5)) << 8,
        ]
      case .setAllMulticast(let isOn): [0x06 | (isOn ? 0x02 << 16 : 0)]
      case .setLargestFrame(let count): [0x05, count]
      }
    }
  }

  // V2PMAILBOX. 8.28.1: reading clears some.
  private static let place = 0x00C40
  private static let memory = 0x00800
  private static let request: UInt32 = 1 << 0
  private static let acknowledge: UInt32 = 1 << 1
  private static let ours: UInt32 = 1 << 2
  private static let theirMessage: UInt32 = 1 << 4
  private static let theirAcknowledgement: UInt32 = 1 << 5
  private static let resetBegun: UInt32 = 1 << 6
  private static let resetDone: UInt32 = 1 << 7
  // Of the first word of an answer.
  private static let granted: UInt32 = 1 << 31
  private static let refused: UInt32 = 1 << 30

  private func look() -> UInt32 {
    let value = registers.read(Self.place)
    if value != .max { seen |= value & (Self.theirMessage | Self.theirAcknowledgement | Self.resetDone | Self.resetBegun) }
    return value
  }

  /// Whether the physical function was reset since the last question: what it granted is gone then.
  var wasReset: Bool {
    _ = look()
    return seen & (Self.resetBegun | Self.resetDone) != 0
  }

  /// How long an exchange may take, all its waits together, in nanoseconds. A physical function's driver answers in its
  /// interrupt handler; the control thread waits.
  static let exchangeLimit: UInt64 = 500_000_000
  /// How long a reset of the physical function may take, in nanoseconds.
  private static let resetLimit: UInt64 = 1_000_000_000

  private func wait(_ what: String, until deadline: UInt64, _ condition: () -> Bool) throws(IntelError) {
    while !condition() {
      guard clock.now < deadline else { throw .unavailable("the physical function's driver does not answer (\(what)): is there one, and is its interface up?") }
      clock.pause(nanoseconds: 500_000)
    }
  }

  /// While the physical function is itself in its reset nothing can be asked of it.
  func waitForPhysicalFunction() throws(IntelError) {
    try wait("its reset does not end", until: clock.now + Self.resetLimit) { look() & (Self.resetDone | Self.resetBegun) == 0 }
    seen = 0
  }

  /// Asks, and waits until it is granted.
  ///
  /// - Throws: `unavailable` if it is refused, or nobody answers.
  func ask(_ question: Question) throws(IntelError) {
    guard try exchange(question) != nil else {
      throw .unavailable("the physical function refuses a wish of its virtual function's (message \(question.words[0] & 0xFFFF))")
    }
  }

  /// The address that the physical function gives this one; nil: it gives none, and this one may choose.
  func reset() throws(IntelError) -> MACAddress? {
    let answer = try exchange(.reset)
    seen = 0
    guard let answer else { return nil }
    let (first, last) = (UInt64(answer[1].byteSwapped), UInt64(UInt16(truncatingIfNeeded: answer[2]).byteSwapped))
    return MACAddress(first << 16 | last)
  }

  /// Asks; the words of the answer, or nil if it is no.
  private func exchange(_ question: Question) throws(IntelError) -> [UInt32]? {
    let deadline = clock.now + Self.exchangeLimit
    try take(until: deadline)
    for (index, word) in question.words.enumerated() { registers.write(word, Self.memory + 4 * index) }
    seen &= ~(Self.theirMessage | Self.theirAcknowledgement)
    // This lets the words go too.
    registers.write(Self.request, Self.place)
    try wait("acknowledgement", until: deadline) {
      _ = look()
      return seen & Self.theirAcknowledgement != 0
    }
    try wait("answer", until: deadline) {
      _ = look()
      return seen & Self.theirMessage != 0
    }
    try take(until: deadline)
    let answer = (0..<3).map { registers.read(Self.memory + 4 * $0) }
    registers.write(Self.acknowledge, Self.place)
    seen &= ~(Self.theirMessage | Self.theirAcknowledgement)
    return answer[0] & Self.refused != 0 || answer[0] & Self.granted == 0 ? nil : answer
  }

  /// The words are ours to write, or to read.
  private func take(until deadline: UInt64) throws(IntelError) {
    try wait("mailbox", until: deadline) {
      registers.write(Self.ours, Self.place)
      return look() & Self.ours != 0
    }
  }
}
