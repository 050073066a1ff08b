/// What a benchmark found. The JSON report is this, with these keys.
public struct BenchmarkReport: Sendable, Codable, Equatable {
  /// Goes up when a key changes its meaning or goes away; new keys do not change it.
  public var schema = 1
  public var files: [String] = []
  public var machine = Machine()
  public var settings = Settings()
  public var quiet = Quiet()
  public var sections: [Part] = []
  /// What went wrong in a replay, in the order in which it was found. Empty in a good run.
  public var findings: [Finding] = []
  /// The whole benchmark's.
  public var elapsed_s: Double = 0
  /// Stopped by a signal; what was measured until then is here.
  public var interrupted = false

  public init() {}

  public struct Settings: Sendable, Codable, Equatable {
    public var rounds = 0
    /// Of each replay.
    public var seconds_per_sample: Double = 0
    /// For the datapath, and for the guests.
    public var processors: [Int] = []
    public var keeps_noisy = false
    /// Samples of a point without which it has no figure.
    public var fewest_samples = 0
    /// What was typed, for who wants to do it again.
    public var command = ""
    public init() {}
  }

  /// How still the machine kept.
  public struct Quiet: Sendable, Codable, Equatable {
    /// Replays that were done, and how many of them the machine disturbed.
    public var samples = 0
    public var set_aside = 0
    /// Of these: the cores' distance changed, or a thread was kept from its processor. A sample may have both.
    public var moved = 0
    public var preempted = 0
    /// How far the two cores were from each other, the nearest first.
    public var distances: [Distance] = []
    public init() {}
  }
  /// Samples whose cores were about equally far from each other.
  public struct Distance: Sendable, Codable, Equatable {
    /// "near", "far", "farther"; "one" if there is no other.
    public var name: String
    /// Nanoseconds in which a cache line goes there and back: the median.
    public var ping_ns: Double
    public var samples: Int
    public init(name: String, ping_ns: Double, samples: Int) { (self.name, self.ping_ns, self.samples) = (name, ping_ns, samples) }
  }

  /// One section.
  public struct Part: Sendable, Codable, Equatable {
    public var section: Section
    /// What was sent, in words.
    public var frames: String
    /// Only samples of this distance of the cores are in its figures. Nil: there was none to tell.
    public var distance: String?
    public var ping_ns: Double?
    public var points: [Measured]
    public init(section: Section, frames: String, distance: String?, ping_ns: Double?, points: [Measured]) {
      (self.section, self.frames, self.distance, self.ping_ns, self.points) = (section, frames, distance, ping_ns, points)
    }
    enum CodingKeys: String, CodingKey { case section, frames, distance, ping_ns, points }
  }
  /// One point.
  public struct Measured: Sendable, Codable, Equatable {
    public var series: String
    public var label: String
    public var x: Double?
    /// By name; empty where the machine was not quiet.
    public var figures: [String: Figure] = [:]
    /// Against another point of the section, of each round in which both have a sample.
    public var ratio: Ratio?
    /// Replays that are in no figure: the machine disturbed them.
    public var set_aside = 0
    /// Replays that are in no figure: the cores were at another distance.
    public var other_distance = 0
    /// Frames that came to no guest, in the samples of the figures; and by reason, as a replay's report names it.
    public var dropped: UInt64 = 0
    public var dropped_by: [String: UInt64] = [:]
    /// Why there is no figure, in words. Nil: there is.
    public var refused: String?
    /// A command that replays the same.
    public var replay: String
    /// What `refused` says where every frame was dropped: the rate of nothing is no figure.
    public static let nothingCame = "no frame came to a guest"
    public init(series: String, label: String, x: Double? = nil, replay: String) {
      (self.series, self.label, self.x, self.replay) = (series, label, x, replay)
    }
    enum CodingKeys: String, CodingKey { case series, label, x, figures, ratio, set_aside, other_distance, dropped, dropped_by, refused, replay }
  }
  public struct Ratio: Sendable, Codable, Equatable {
    /// The figure that is compared, and the point that counts 1.
    public var figure: String
    public var against: String
    public var value: Figure
    public init(figure: String, against: String, value: Figure) { (self.figure, self.against, self.value) = (figure, against, value) }
  }
  public struct Finding: Sendable, Codable, Equatable {
    public enum Kind: String, Sendable, Codable { case unaccounted, unverified, stopped, unreadable }
    public var kind: Kind
    public var text: String
    public init(kind: Kind, text: String) { (self.kind, self.text) = (kind, text) }
  }

  /// Where it was measured. What cannot be found out is nil.
  public struct Machine: Sendable, Codable, Equatable {
    public var processor: String?
    /// Processors that there are.
    public var processors = 0
    public var kernel: String?
    public var memory_bytes: UInt64?
    /// As "L1 data 48K".
    public var caches: [String] = []
    public var huge_pages: String?
    /// Of the first processor used: what sets its clock.
    public var governor: String?
    /// Under a hypervisor, as far as the processor says so.
    public var is_virtual: Bool?
    public var sluice: String?
    public var swift: String?
    /// Not a debug build.
    public var optimised = false
    enum CodingKeys: String, CodingKey {
      case processor, processors, kernel, memory_bytes, caches, huge_pages, governor, is_virtual, sluice, swift, optimised
    }
    public init() {}
  }
}

/// The names of figures.
public enum FigureName {
  public static let frames = "frames_per_second"
  public static let bits = "bits_per_second"
  public static let datapath = "datapath_ns_per_frame"
  public static let model = "model_ns_per_frame"
  /// Datapath and model: what the host spends.
  public static let host = "host_ns_per_frame"
  /// Latencies from due on, the shortest first.
  public static let latencies = ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "p9999_ns", "max_ns"]
}
