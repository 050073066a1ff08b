/// What a card does wrong, and how long it takes for what it does right. Nanoseconds of the simulated clock.
public struct CardFaults: Hashable, Sendable {
  // How long a card takes in order.
  public var resetTime: UInt64 = 1_000
  /// From a reset to a finished EEPROM read, and to RDRXCTL.DMAIDONE.
  public var initialisationTime: UInt64 = 500_000
  public var enableLatency: UInt64 = 10_000
  public var disableLatency: UInt64 = 10_000
  public var linkUpDelay: UInt64 = 1_000_000
  public var masterDisableLatency: UInt64 = 1_000
  public var flowDirectorInitialisationTime: UInt64 = 60_000

  // What it does wrong.
  public var resetNeverCompletes = false
  /// RXDCTL.ENABLE and TXDCTL.ENABLE stay set when they are cleared.
  public var neverDisables = false
  public var neverEnables = false
  public var linkNeverComes = false
  /// The link goes down at this time, and comes back so much later; nil: for good.
  public var linkDownAt: UInt64?
  public var linkDownFor: UInt64?
  /// Frames that arrive while a queue is being disabled are still delivered.
  public var deliversWhileDisabling = false
  /// One more frame, of 60 bytes 0xA5, goes into the next buffer of a queue so long after RXDCTL.ENABLE reads 0.
  /// The datasheet allows for about 100 µs (4.6.7.1.2).
  public var lateDMAAfterDisable: UInt64?
  /// Descriptors are written back by so many, or when `writeBackDelay` has passed.
  public var writeBackBatch = 1
  public var writeBackDelay: UInt64 = 10_000
  /// Each second descriptor is written back before the first of its pair.
  public var writesBackOutOfOrder = false
  /// Added to the length of every so many-th descriptor.
  public var lengthError: Int = 0
  public var lengthErrorEvery = 1
  /// A frame's bytes are left unwritten, where it takes one descriptor: everything else is done. For measuring what is left
  /// of the host's work when a card's DMA writes them.
  public var leavesPayload = false
  /// The card leaves the bus once it has written back so many descriptors.
  public var removedAfterDescriptors: UInt64?

  public init() {}
  public static let none = CardFaults()

  /// Whether write-backs take the long way.
  var changesWriteBack: Bool { writeBackBatch > 1 || writesBackOutOfOrder || lengthError != 0 || removedAfterDescriptors != nil }
}

/// Something that a driver must not do. What the hardware would make of it is not known; the model says so and goes on.
public enum CardMisuse: Hashable, Sendable {
  /// RDBAL or TDBAL is not a multiple of 128, or RDLEN or TDLEN is none, or zero.
  case badReceiveRing(queue: Int)
  case badTransmitRing(queue: Int)
  /// RDT or TDT past the end of the ring.
  case badReceiveTail(queue: Int)
  case badTransmitTail(queue: Int)
  /// RDT was written before RXDCTL.ENABLE read 1. 82599 datasheet 4.6.7.
  case tailBeforeEnable(queue: Int)
  /// A ring's registers were written while it was enabled; they stay as they were.
  case ringChangedWhileEnabled(queue: Int)
  /// SRRCTL.DESCTYPE is neither legacy nor advanced with one buffer, or BSIZEPACKET is 0.
  case badDescriptorType(queue: Int)
  /// RDRXCTL.CRCSTRIP and HLREG0.RXCRCSTRP must agree. 82599 datasheet 8.2.3.8.8.
  case checkSequenceStripDisagrees
  /// A register was written between CTRL.RST and its end.
  case writtenDuringReset(offset: Int)
  /// A pool was selected and MRQC is not in a virtualisation mode.
  case poolsWithoutQueues
  /// Transmit segmentation, which the model does not have.
  case segmentation(queue: Int)
}

/// Why a queue stands still until the card is reset.
public enum CardQueueFault: Hashable, Sendable {
  case descriptorRead(address: UInt64)
  case descriptorWrite(address: UInt64)
  case bufferWrite(address: UInt64, count: Int)
  case bufferRead(address: UInt64, count: Int)
  case misuse(CardMisuse)
}
