public import Datapath
public import FlowSteering
public import Simulation

/// Everything that a replay is told. Checked as a whole by `validate` before anything starts.
public struct ReplayOptions: Sendable {
  /// How fast frames are put on the wire.
  public enum Pace: Hashable, Sendable {
    /// As the time stamps say, times this: 1 is as captured.
    case original(multiplier: Double)
    case framesPerSecond(Double)
    /// Bits on the line: each frame counts with its FCS, preamble and gap, 24 bytes more than was captured.
    case gigabitsPerSecond(Double)
    /// As fast as the guests take them: the wire waits for a guest that refills, not for one that has stalled.
    case top
  }

  /// When to stop; what comes first.
  public struct Limit: Hashable, Sendable {
    /// How often the traces are played, one after the other.
    public var loops: Int
    /// Seconds of replay.
    public var seconds: Double?
    public init(loops: Int = 1, seconds: Double? = nil) {
      self.loops = loops
      self.seconds = seconds
    }
  }

  /// One virtual machine.
  public struct VM: Hashable, Sendable {
    public var name: String
    /// The address whose frames it gets. Nil with a single VM: it gets everything.
    public var address: MACAddress?
    /// The VLAN whose frames it gets.
    public var vlan: UInt16?
    /// Receive queues: 1, 2 or 4.
    public var queues: Int
    public var buffers: BufferShape
    /// Bytes of each of its buffers, the header with them; nil for the shape's own.
    public var bufferBytes: Int?
    /// Frames after which it never takes another, to see what happens then; nil for a guest that keeps up.
    public var stallsAfter: UInt64?
    public init(
      name: String, address: MACAddress? = nil, vlan: UInt16? = nil, queues: Int = 1,
      buffers: BufferShape = .linux, bufferBytes: Int? = nil, stallsAfter: UInt64? = nil
    ) {
      self.name = name
      self.address = address
      self.vlan = vlan
      self.queues = queues
      self.buffers = buffers
      self.bufferBytes = bufferBytes
      self.stallsAfter = stallsAfter
    }
  }

  /// Traces, replayed in this order; "-" is standard input.
  public var files: [String]
  public var limit = Limit()
  public var pace = Pace.top
  /// Empty: one VM that gets everything.
  public var vms: [VM] = []
  /// Which frames go to whom, besides what addresses and VLANs say. With rules a VM without an address gets only what
  /// they give it.
  public var rules: [Rule] = []
  /// Entries of each guest ring, a power of two from 2 to 32768.
  public var ringSize = 1024
  /// Bytes of payload, as of a network interface: 1500 takes frames of 1514, and 1518 with a VLAN tag.
  public var mtu = 1500
  public var mode = PathMode.auto
  /// Whether what arrives is compared with the trace; nil: if the traces are small enough.
  public var verify: Bool?
  /// A BPF expression that frames must match to be replayed.
  public var filter: String?
  /// Whether frames whose end was not captured are replayed as they are; else they are counted and left out.
  public var allowsTruncated = false
  /// Whether the traces are read into memory before the replay starts; nil: if they are small enough.
  public var preload: Bool?
  /// VM name to the file that gets what it received. The name "" is all VMs.
  public var captures: [(vm: String, path: String)] = []
  public var seed: UInt64 = 1
  /// One thread and simulated time: the same seed gives the same event log, byte by byte.
  public var isDeterministic = false
  /// Where the event log goes; nil: none is kept. Only with `isDeterministic`.
  public var eventLog: String?
  /// Processors for the datapath and the guests; nil: the first two that the process may use.
  public var processors: [Int]?
  /// Whether guests look for writes outside what they were given. Slow: for tests.
  public var checksCanaries = false
  /// Bytes of each guest's memory at least, over all of which its buffers are spread; nil: what rings and buffers take.
  public var guestMemory: Int?
  /// Whether the machine should take guest memory from huge pages.
  public var hugePages = false

  public init(files: [String]) { self.files = files }
}
