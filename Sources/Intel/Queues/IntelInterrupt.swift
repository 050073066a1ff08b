internal import Bus

/// One vector of a card.
///
/// To sleep: `arm`, then look at the queues once more, and wait for the message only if there was nothing. A frame that
/// was stored before `arm` is there at that look; one that was stored later raises the vector. After the message the
/// vector is masked until it is armed again.
///
/// `@unchecked Sendable`: it writes registers that only set or clear what is written as one. The registers take that
/// from any thread, as a BAR does; a model does so if it says so.
public struct IntelInterrupt: @unchecked Sendable {
  public let vector: Int
  /// The vector's, in each of the registers.
  private let bit: UInt32
  /// Where its cause is latched; nil: nowhere. Where it is unmasked, and masked.
  private let cause: Int?
  private let set: Int
  private let clear: Int
  private let registers: any RegisterFile

  init(vector: Int, bit: UInt32, cause: Int?, set: Int, clear: Int, registers: any RegisterFile) {
    (self.vector, self.bit, self.cause, self.set, self.clear, self.registers) = (vector, bit, cause, set, clear, registers)
  }

  /// Lets the vector send one message. What was latched before goes first: the look that follows sees its frames.
  public func arm() {
    if let cause { registers.write(bit, cause) }
    registers.write(bit, set)
  }
  /// Masks the vector: it sends nothing until it is armed. A message may be under way already.
  public func disarm() { registers.write(bit, clear) }
}
