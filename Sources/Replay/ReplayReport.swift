public import FlowSteering

/// What a replay did: every frame is in one of its sums. The JSON report is this, with these keys.
public struct ReplayReport: Sendable, Codable, Equatable {
  /// Goes up when a key changes its meaning or goes away; new keys do not change it.
  public var schema = 1

  public struct Frames: Sendable, Codable, Equatable {
    /// Read from the traces, all loops together, after the filter.
    public var read: UInt64 = 0
    /// Read but not put on the wire: their end was not captured.
    public var skipped: UInt64 = 0
    /// Put on the wire, and so received by the card.
    public var received: UInt64 = 0
    /// Further copies that the card made of broadcast and multicast frames for several VMs.
    public var replicated: UInt64 = 0
    public var delivered: UInt64 = 0
    public var lent: UInt64 = 0
    public var bounced: UInt64 = 0
    public var dropped: UInt64 = 0
    public init() {}
  }
  public struct Bytes: Sendable, Codable, Equatable {
    public var received: UInt64 = 0
    public var delivered: UInt64 = 0
    /// Copied by the processor on the host side.
    public var copied: UInt64 = 0
    public init() {}
  }
  public struct VM: Sendable, Codable, Equatable {
    public var delivered: UInt64 = 0
    public var lent: UInt64 = 0
    public var bounced: UInt64 = 0
    public var dropped: UInt64 = 0
    public var bytes: UInt64 = 0
    /// Of each frame's length (4 bytes, little endian) and bytes, in order; with several queues, of their digests
    /// in the order of the queues. Nil if it was not computed.
    public var sha256: String?
    public var bounced_by: [String: UInt64] = [:]
    public var dropped_by: [String: UInt64] = [:]
    /// What steers frames to it, in words.
    public var steering: String = ""
    public var buffers: String = ""
    public var queues: Int = 1
    /// Why its path stopped before the end; nil if it did not.
    public var stopped: String?
    /// What the guest found wrong with what it was given; empty in a good run.
    public var violations: [String] = []
    public init() {}
  }
  public struct Rule: Sendable, Codable, Equatable {
    /// 0: it follows from a VM.
    public var id: Int
    public var text: String
    /// An address rule's frames, a flow rule's copies. Nil: the card cannot tell them from another rule's.
    public var frames: UInt64?
    public var bytes: UInt64?
  }
  /// What rules sent to the machine itself.
  public struct Host: Sendable, Codable, Equatable {
    public var frames: UInt64
    public var bytes: UInt64
    /// As a VM's; nil if it was not computed.
    public var sha256: String?
  }
  public struct IOMMU: Sendable, Codable, Equatable {
    public var faults: UInt64 = 0
    public var maps: UInt64 = 0
    /// The first few faults, in words.
    public var first: [String] = []
    public init() {}
  }
  public struct Rate: Sendable, Codable, Equatable {
    /// Delivered.
    public var frames_per_second: Double = 0
    /// Of delivered frames as captured, without FCS, preamble and gap.
    public var bits_per_second: Double = 0
    public init() {}
  }
  public struct Cost: Sendable, Codable, Equatable {
    /// Nanoseconds of the datapath's thread for a settled frame: take, resolve, post, reap, header, publish.
    public var datapath_ns_per_frame: Double = 0
    /// Nanoseconds that the simulated card took for a frame, its DMA included: what hardware would do.
    public var model_ns_per_frame: Double = 0
    /// Nanoseconds spent reading the trace, and comparing, for a frame.
    public var source_ns_per_frame: Double = 0
    public init() {}
  }
  /// Until a frame's used index is visible to the guest, in nanoseconds.
  public struct Latency: Sendable, Codable, Equatable {
    public var p50: UInt64 = 0
    public var p90: UInt64 = 0
    public var p99: UInt64 = 0
    public var p999: UInt64 = 0
    public var p9999: UInt64 = 0
    public var max: UInt64 = 0
    public init() {}
  }
  /// Nanoseconds that a thread could run and did not, for its processor was another's.
  public struct Waits: Sendable, Codable, Equatable {
    public var datapath: UInt64
    public var guests: UInt64
    public init(datapath: UInt64, guests: UInt64) { (self.datapath, self.guests) = (datapath, guests) }
  }
  public struct Pacing: Sendable, Codable, Equatable {
    /// As asked for: "top", "original", "x2", "pps=1000000", "gbps=10".
    public var asked: String = "top"
    public var asked_frames_per_second: Double?
    public var achieved_frames_per_second: Double = 0
    /// Achieved against asked, in percent; nil at top speed.
    public var error_percent: Double?
    /// How late frames were put on the wire, in nanoseconds.
    public var late_p99_ns: UInt64?
    public var late_max_ns: UInt64?
    public init() {}
  }
  /// Each law of conservation as two sums that must be equal.
  public struct Law: Sendable, Codable, Equatable {
    public var name: String
    public var left: UInt64
    public var right: UInt64
    public var holds: Bool { left == right }
    public init(_ name: String, _ left: UInt64, _ right: UInt64) {
      self.name = name
      self.left = left
      self.right = right
    }
    enum CodingKeys: String, CodingKey { case name, left, right }
  }

  public var files: [String] = []
  public var frames = Frames()
  public var bytes = Bytes()
  public var bounced_by: [String: UInt64] = [:]
  public var dropped_by: [String: UInt64] = [:]
  public var vms: [String: VM] = [:]
  /// The names of the VMs in the order they were given.
  public var vm_order: [String] = []
  /// Nil if nothing was compared; else whether every VM got exactly what the trace holds for it.
  public var verified: Bool?
  /// Why not, in words.
  public var verification_errors: [String] = []
  /// What the card's filters have counted, by rule, in the order in which they are asked; empty for the one VM of a port
  /// without rules.
  public var rules: [Rule] = []
  /// Nil: no rule sends the host anything.
  public var host: Host?
  public var conservation: [Law] = []
  public var iommu = IOMMU()
  public var rate = Rate()
  public var cost = Cost()
  /// From the card's receiving a frame on.
  public var latency_ns = Latency()
  /// From the moment on at which a frame was due: a wire that comes late is counted. Nil at top speed.
  public var due_latency_ns: Latency?
  public var pacing = Pacing()
  /// Nil: the kernel does not say, or time was simulated.
  public var waited_ns: Waits?
  public var elapsed_s: Double = 0
  public var loops: Int = 0
  public var seed: UInt64 = 0
  public var deterministic = false
  public var mode = "auto"
  /// What was odd about the traces, counted: "time goes backwards" and the like.
  public var warnings: [String: UInt64] = [:]
  /// Why a trace could not be read to its end, in words; the frames before that were replayed. Nil in a good run.
  public var trace_error: String?
  /// Why a file that was to get frames or events is not whole, in words. Nil in a good run.
  public var output_error: String?
  /// The replay was stopped by a signal before its end.
  public var interrupted = false

  public init() {}

  /// Every frame is in one of the sums.
  public var isAccountedFor: Bool { conservation.allSatisfy(\.holds) && iommu.faults == 0 }
}

/// Where a replay stands while it runs.
public struct ReplayProgress: Sendable, Equatable {
  public var framesReceived: UInt64
  public var framesDelivered: UInt64
  public var bytesDelivered: UInt64
  public var framesDropped: UInt64
  /// Seconds since the first frame.
  public var elapsed: Double
  /// Of the whole replay, 0 to 1; nil if its length is not known (a pipe, no limit).
  public var fraction: Double?
  public init(
    framesReceived: UInt64, framesDelivered: UInt64, bytesDelivered: UInt64, framesDropped: UInt64, elapsed: Double,
    fraction: Double?
  ) {
    self.framesReceived = framesReceived
    self.framesDelivered = framesDelivered
    self.bytesDelivered = bytesDelivered
    self.framesDropped = framesDropped
    self.elapsed = elapsed
    self.fraction = fraction
  }
}

/// Why a replay could not be done, or not to its end.
public enum ReplayError: Error, Sendable, CustomStringConvertible {
  /// What was asked for does not fit together; the text names the option and the mend.
  case usage(String)
  /// A trace cannot be read; the text names file, offset and reason.
  case unreadable(String)
  /// No frame was put on the wire: the traces are empty, or the filter leaves nothing.
  case nothingSent(String)
  /// The machine refused something: memory, a thread, a file.
  case machine(String)
  /// The card cannot do what the rules say.
  case rule(RuleError)

  public var description: String {
    switch self {
    case .rule(let error): error.description
    case .usage(let text), .unreadable(let text), .nothingSent(let text), .machine(let text): text
    }
  }
}
