public import Linux
public import Virtio

extension SimulatedGuest {
  /// What a simulated guest is like.
  public struct Configuration: Sendable {
    /// For messages, and the names of its memory files.
    public var name: String
    /// Receive queues.
    public var queueCount = 1
    /// Entries of each queue's ring: a power of two from 2 to 32768.
    public var ringSize = 256
    public var shape = BufferShape.linux
    /// A buffer's size in bytes, its header with it; nil for the shape's own.
    public var bufferByteCount: Int?
    /// Buffers of each queue beyond those that fit into its ring, so that a buffer rests before it is posted again.
    public var spareBuffers = 0
    /// What it takes if the device offers it. It never takes more than `understoodFeatures`.
    public var features: Features = [.version1, .mergeableBuffers, .eventIndex, .indirectDescriptors]
    public var placement = Placement()
    public var pace = Pace.full
    /// A ring is refilled when more than this many of its descriptors are free; nil does as Linux: half of what a
    /// step may take, or of the ring if that is less.
    public var refillThreshold: Int?
    /// Fills buffers with a pattern before they are posted, and checks what the device must have left alone.
    public var checksCanaries = false
    /// Fills memory that is neither a buffer nor a ring with noise, for `verifyUntouched`.
    public var checksUnusedMemory = false
    /// Hashes every frame of a queue into one digest.
    public var hashesFrames = false
    /// Of the noise, and of the order of buffers.
    public var seed: UInt64 = 1

    public init(name: String = "guest") { self.name = name }
  }

  /// Where in guest memory things lie. There are two regions, as in a PC: low memory from address 0, high memory from 4 GiB.
  /// Rings are in low memory.
  public struct Placement: Hashable, Sendable {
    /// The share of buffers in low memory, in percent.
    public var lowShare = 50
    /// Puts the last buffer of each region at the region's very end.
    public var atRegionEnds = true
    /// Posts buffers in an order that only the seed tells.
    public var isShuffled = false
    /// Bytes of each region that hold nothing, at least.
    public var unusedByteCount = 64 << 10
    /// Bytes of memory, both regions together, at least: buffers are spread over all of it. Nil: what there has to be.
    public var memoryByteCount: Int?
    public var pages = PageSize.standard
    /// The machine's memory node that it should lie on; nil leaves that to the kernel.
    public var node: Int?
    public init() {}
  }

  /// How fast the guest takes frames.
  public enum Pace: Hashable, Sendable {
    /// Up to a step's budget of 64 at a time.
    case full
    /// At most so many in one step.
    case slow(framesPerStep: Int)
    /// Each queue stops for ever after so many.
    case stall(afterFrames: UInt64)
  }

  /// The features that this driver knows. VIRTIO_F_IN_ORDER is not one of them, as in Linux before 6.17:
  /// a device has to write a used element for every buffer.
  public static let understoodFeatures: Features = [
    .version1, .mergeableBuffers, .eventIndex, .indirectDescriptors, .guestChecksum, .mac, .mtu, .multiqueue,
  ]
}
