/// What a running back-end says of itself: the body of `/v1/status`. Keys are stable, as the replay report's are.
public struct StatusReport: Codable, Sendable {
  public var schema = 1
  public var version: String
  public var pid: Int
  public var uptime_s: Double
  public var nic: NIC
  /// By number.
  public var workers: [Worker]
  /// Nil: the machine has no port of its own.
  public var host: Host?
  public var vm_order: [String]
  public var vms: [String: VM]
  /// Sums from different places that must be equal when nothing is under way; `in_flight` frames may be.
  public var laws: [Law]

  public struct NIC: Codable, Sendable {
    /// `sim`, `82576 at 0000:03:00.0`.
    public var kind: String
    public var link_up: Bool
    public var megabits: Int
    public var mtu: Int
    /// Nil: the kernel's log, which tells of them, may not be read.
    public var iommu_faults: Int?
    public var iommu_maps: Int
    /// Mappings that the IOMMU did not remove, since the start: their memory stays allocated.
    public var unmap_failures: Int
    /// `tap NAME`, `none`, `its own`: the card is real.
    public var wire: String
    /// Frames and bytes from the wire, and to it.
    public var received: Traffic
    public var sent: Traffic
    /// From one VM to another, without the wire; nil: the card does not tell.
    public var switched: UInt64?
    public var replicated: UInt64?
    /// Before any VM was known to be the one.
    public var dropped_by: [String: UInt64]
    /// Times that the NIC signalled the loss of received frames for want of a buffer or of room: at least as many are lost, and a
    /// NIC that does not count them in `dropped_by` shows them here only. Nil if the NIC does not signal that.
    public var overruns: UInt64?
    /// What the card and the ports above it have counted since the machine's boot (Advanced Error Reporting), by severity and
    /// then by name; nil: the card is a model, or none of them reports any.
    public var bus_errors: [String: [String: UInt64]]?
  }

  public struct Traffic: Codable, Sendable {
    public var frames: UInt64
    public var bytes: UInt64
    public init(frames: UInt64 = 0, bytes: UInt64 = 0) {
      self.frames = frames
      self.bytes = bytes
    }
  }

  /// The machine's own port: a TAP device.
  public struct Host: Codable, Sendable {
    public var tap: String
    /// To the machine, and from it.
    public var given: Traffic
    public var taken: Traffic
    /// `refused` by the device, `damaged`, `misshapen`: of a length that is no frame's here.
    public var dropped_by: [String: UInt64]
    public init(tap: String, given: Traffic, taken: Traffic, dropped_by: [String: UInt64]) {
      (self.tap, self.given, self.taken, self.dropped_by) = (tap, given, taken, dropped_by)
    }
  }

  public struct Worker: Codable, Sendable {
    /// The processor that it is pinned to.
    public var cpu: Int?
    /// Of that processor, or of the guests' memory that it was brought to.
    public var numa_node: Int?
    public var turns: UInt64
    public var sleeps: UInt64
    /// In turns of VMs' rings that moved something: what the datapath costs this processor.
    public var datapath_s: Double
    /// In steps of the simulated card that moved something: what a card's hardware would do.
    public var model_s: Double
  }

  public struct VM: Codable, Sendable {
    public var socket: String
    /// `listening`, `connecting`, `connected`.
    public var connection: String
    /// Of the front-end, where the kernel says.
    public var peer_pid: Int?
    public var peer_uid: Int?
    public var connections: UInt64
    /// VIRTIO_NET_F_…, VIRTIO_F_…, without their prefixes; empty until acknowledged.
    public var features: [String]
    public var protocol_features: [String]
    public var mac: String?
    public var vlan: Int?
    /// How the VLAN's frames look to it: `access`, `tagged`; nil without one.
    public var vlan_port: String?
    /// What sees to it that it sends only its own address, and only into its own VLAN: `card`, `processor`, `off`.
    public var source_check: String?
    public var vlan_check: String?
    public var mtu: Int
    public var memory_regions: Int
    public var memory_bytes: UInt64
    public var numa_node: Int?
    public var worker: Int
    public var logging: Bool
    /// Pages of 4096 bytes that were marked in a log and had not been, since the start.
    public var dirty_pages: UInt64
    public var quiesces: Quiesces
    /// Why the VM is not served, and no front-end accepted; nil if it is. A queue of the NIC does not stop: until the NIC is
    /// reset. Its worker does not answer: until the worker does.
    public var contained: String?
    /// Times that this happened.
    public var containments: UInt64
    /// What it has cost others. Nil: of a report of an earlier version.
    public var work: Work?
    /// The last thing that a front-end or a guest did wrong.
    public var last_violation: String?
    public var rings: [Ring]
    public var receive: Frames
    public var transmit: Frames
  }

  /// What a VM took of what it shares with others.
  public struct Work: Codable, Sendable {
    /// Time of its worker, for whatever it was: frames, descriptors, copies, notifications.
    public var worker_s: Double
    /// The most of it at once.
    public var longest_s: Double
    /// Iterations of its worker in which it was passed over, because others had to catch up.
    public var deferrals: UInt64
    /// Polls of its rings that ended at their budget of descriptors.
    public var cut_polls: UInt64
    /// Notifications that a thread of its own made, because they are dear.
    public var notifier_signals: UInt64
    /// Times that its front-end was not read for a while, because it had sent too many messages that others wait for.
    public var message_pauses: UInt64
    public init(worker_s: Double, longest_s: Double, deferrals: UInt64, cut_polls: UInt64, notifier_signals: UInt64, message_pauses: UInt64) {
      (self.worker_s, self.longest_s, self.deferrals) = (worker_s, longest_s, deferrals)
      (self.cut_polls, self.notifier_signals, self.message_pauses) = (cut_polls, notifier_signals, message_pauses)
    }
  }

  /// How often a ring's queue of the card was brought to rest and its buffers were taken back, before the front-end had
  /// its answer; how long that took.
  public struct Quiesces: Codable, Sendable {
    public var count: UInt64 = 0
    public var total_s: Double = 0
    public var longest_s: Double = 0
    public init() {}
  }

  public struct Ring: Codable, Sendable {
    public var index: Int
    /// `receive`, `transmit`.
    public var direction: String
    /// `stopped`, `running`, `disabled`, `failed`.
    public var state: String
    /// `split`, `packed`; nil if it never ran.
    public var format: String?
    public var size: Int?
    /// Why it failed.
    public var reason: String?
    /// Buffers that the guest has posted and we have taken.
    public var outstanding: Int
    public var signals: UInt64
    /// Batches that the driver did not want to be told of.
    public var suppressed_signals: UInt64
    public var doorbells: UInt64
  }

  /// Of all rings of a direction since the start, whatever connection they belonged to.
  public struct Frames: Codable, Sendable {
    public var lent: Traffic = Traffic()
    public var bounced: Traffic = Traffic()
    public var bounced_by: [String: UInt64] = [:]
    /// The card's and the path's.
    public var dropped_by: [String: UInt64] = [:]
    public init() {}
  }

  public struct Law: Codable, Sendable {
    public var name: String
    public var left: UInt64
    public var right: UInt64
    public var in_flight: UInt64
    public var holds: Bool
  }
}

/// What becomes of a trace that is put on the wire of a running back-end: the body of an answer to `/v1/inject`.
public struct InjectReport: Codable, Sendable {
  public var schema = 1
  public var file: String
  public var loops: Int
  public var frames: Frames
  public var bytes_sent: UInt64
  public var dropped_by: [String: UInt64]
  /// By VM.
  public var delivered: [String: UInt64]
  public var elapsed_s: Double
  /// Ended before its time: by a signal, by the back-end's end, by an error of the trace.
  public var interrupted: String?

  public struct Frames: Codable, Sendable {
    public var sent: UInt64
    public var replicated: UInt64
    public var delivered: UInt64
    /// Put into the machine's own queue.
    public var host: UInt64
    public var dropped: UInt64
  }
}

/// What is asked for with `/v1/inject`.
public struct InjectRequest: Codable, Sendable {
  /// As the back-end sees it.
  public var file: String
  public var loops: Int
  /// `top`, `pps=N`.
  public var speed: String
  public var filter: String?
  public init(file: String, loops: Int = 1, speed: String = "top", filter: String? = nil) {
    self.file = file
    self.loops = loops
    self.speed = speed
    self.filter = filter
  }
}

extension InjectRequest {
  private struct Key: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init(_ text: String) { stringValue = text }
    init?(stringValue: String) { self.init(stringValue) }
    init?(intValue: Int) { nil }
  }

  /// Only `file` must be there; a key that is not one of ours is an error, not a request for something else.
  public init(from decoder: any Decoder) throws {
    let keys = try decoder.container(keyedBy: Key.self)
    let known = ["file", "loops", "speed", "filter"]
    if let other = keys.allKeys.first(where: { !known.contains($0.stringValue) }) {
      throw DecodingError.dataCorruptedError(
        forKey: other, in: keys, debugDescription: "no such key; keys are \(known.joined(separator: ", "))")
    }
    file = try keys.decode(String.self, forKey: Key("file"))
    // A number that is not whole is no decoding error of its own everywhere.
    guard let loops = keys.contains(Key("loops")) ? try? keys.decode(Int.self, forKey: Key("loops")) : 1, loops >= 1 else {
      throw DecodingError.dataCorruptedError(
        forKey: Key("loops"), in: keys, debugDescription: "must be a whole number, 1 or more")
    }
    self.loops = loops
    speed = try keys.decodeIfPresent(String.self, forKey: Key("speed")) ?? "top"
    filter = try keys.decodeIfPresent(String.self, forKey: Key("filter"))
  }
}
