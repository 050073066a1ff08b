internal import Bus

// MSI-X, 82599 datasheet 7.3. A vector is masked until it is armed, sends one message, and is masked by that again: a
// worker that polls is not disturbed, and one that wants to sleep arms its vector first.

extension Ixgbe {
  /// Vectors for queues. A queue's causes may go to any of them, several to one.
  public static let vectorCount = 64

  /// Sends a queue's message, "a frame was stored", to a vector; nil: to none, as after a reset.
  public func assign(vector: Int?, receiveQueue n: Int) throws(IntelError) {
    guard n >= 0 && n < configuration.receiveQueueCount else { throw .queue(n, count: configuration.receiveQueueCount) }
    try setVector(vector, entry: n % 2 * 2, of: n)
  }
  /// Sends a queue's message, "a frame was sent", to a vector; nil: to none, as after a reset.
  public func assign(vector: Int?, transmitQueue n: Int) throws(IntelError) {
    guard n >= 0 && n < configuration.transmitQueueCount else { throw .queue(n, count: configuration.transmitQueueCount) }
    try setVector(vector, entry: n % 2 * 2 + 1, of: n)
  }

  private func setVector(_ vector: Int?, entry: Int, of n: Int) throws(IntelError) {
    if let vector { try Self.check(vector, of: "interrupt vectors", count: Self.vectorCount) }
    registers.modify(IVAR.self, n / 2) { $0.set(entry, vector: vector) }
  }

  /// A vector, to be armed by whoever sleeps on it.
  public func interrupt(_ vector: Int) throws(IntelError) -> IntelInterrupt {
    try Self.check(vector, of: "interrupt vectors", count: Self.vectorCount)
    return IntelInterrupt(
      vector: vector, bit: 1 << UInt32(vector % 32), cause: vector < 16 ? EICR.offset(0) : nil, set: EIMS_EX.offset(vector / 32),
      clear: EIMC.offset(1 + vector / 32), registers: registers)
  }
  public func enableInterrupt(_ vector: Int) throws(IntelError) { try interrupt(vector).arm() }
  public func disableInterrupt(_ vector: Int) throws(IntelError) { try interrupt(vector).disarm() }

  /// How long a vector is quiet after a message: 0 to 1022 µs, in steps of 2. 0, the default, does not hold it back.
  public func setModeration(microseconds: Int, vector: Int) throws(IntelError) {
    try Self.check(vector, of: "interrupt vectors", count: Self.vectorCount)
    try Self.check(microseconds / 2, of: "moderation intervals (2 µs each)", count: 512)
    var throttle = EITR(rawValue: 0)
    throttle.interval = UInt32(microseconds / 2)
    throttle.keepsCounter = true
    registers.write(throttle, vector)
  }

  /// One message a vector, masked and without a queue. After a reset, and before any queue runs.
  func initializeInterrupts() {
    var enable = GPIE(rawValue: 0)
    enable.usesVectors = true
    enable.masksAutomatically = true
    enable.keepsPendingBits = true
    registers.write(enable)
    registers.write(EIAC(rawValue: 0xFFFF))
    for n in 0..<2 { registers.write(EIAM_EX(rawValue: .max), n) }
    for n in 0..<64 { registers.write(IVAR(rawValue: 0), n) }
    for n in 0..<Self.vectorCount { registers.write(EITR(rawValue: 0), n) }
  }
}
