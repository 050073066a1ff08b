internal import Datapath
internal import FlowSteering
internal import Replay

/// One thing to measure: a short replay, and where it stands among its neighbours.
public struct Point: Sendable {
  /// What it belongs to in a plot: "lent", "copied", "1536 B".
  public var series: String
  /// What tells it from its neighbours: "64 B", "imix".
  public var label: String
  /// Its place on the axis; nil where there are only names.
  public var x: Double?
  /// Frames that it sends.
  var trace: Trace
  var options: ReplayOptions
  /// Of the highest rate, 0 to 1; nil: at top speed.
  var share: Double?
  /// The number of the point in its section that this one is compared with; nil: none.
  var base: Int?

  enum Trace: Hashable, Sendable {
    case files([String])
    case made(SyntheticTrace)
  }
}

/// What is measured, in its order. Nothing is opened yet.
public struct Plan: Sendable {
  public struct Part: Sendable {
    public var section: Section
    /// What was sent, in words.
    public var frames: String
    public var points: [Point]
  }
  public private(set) var parts: [Part] = []
  private let options: BenchmarkOptions

  public init(_ options: BenchmarkOptions) {
    self.options = options
    for section in options.sections { parts.append(part(section)) }
  }

  public var pointCount: Int { parts.reduce(0) { $0 + $1.points.count } }

  private func part(_ section: Section) -> Part {
    switch section {
    case .rate: rate
    case .size: Part(section: .size, frames: "frames of one size", points: pairs(Self.sizes.map { ("\($0) B", Double($0), .frames(of: $0)) }))
    case .vms: vms
    case .queues: queues
    case .rules: rules
    case .ring: ring
    case .buffers: buffers
    case .memory: memory
    case .latency: latency
    }
  }

  // MARK: Sections

  static let sizes = [64, 128, 256, 512, 1024, 1514, 4096, 9014]

  private var rate: Part {
    guard options.files.isEmpty else {
      let points = options.files.flatMap { file in
        [PathMode.auto, .copy].map { mode in
          Point(series: mode == .copy ? "copied" : "lent", label: Self.name(file), trace: .files([file]), options: replay(mode: mode))
        }
      }
      return Part(section: .rate, frames: options.files.map(Self.name).joined(separator: ", "), points: based(points))
    }
    let sizes = [64, 128, 256, 512, 1024, 1514, 9014].map { ("\($0) B", nil as Double?, SyntheticTrace.frames(of: $0)) }
    return Part(section: .rate, frames: "frames of one size, and IMIX", points: pairs(sizes + [("IMIX", nil, .imix)]))
  }

  /// Each trace lent and copied; the copied one compared with the lent.
  private func pairs(_ traces: [(label: String, x: Double?, trace: SyntheticTrace)]) -> [Point] {
    based(
      traces.flatMap { label, x, trace in
        [PathMode.auto, .copy].map { mode in
          var options = replay(mode: mode)
          if trace.sizes.contains(where: { $0 > 1514 }) {
            options.mtu = 9000
            options.vms[0].bufferBytes = 9216
          }
          return Point(series: mode == .copy ? "copied" : "lent", label: label, x: x, trace: .made(trace), options: options)
        }
      })
  }
  private func based(_ pairs: [Point]) -> [Point] {
    pairs.enumerated().map { index, point in
      var point = point
      point.base = index % 2 == 1 ? index - 1 : nil
      return point
    }
  }

  private var vms: Part {
    // An 82599 has 64 pools, and keeps three of them.
    line(.vms, [1, 2, 4, 8, 16, 32, 61], frames: "IMIX, to the VMs in turn") { count, point in
      point.trace = .made(SyntheticTrace(name: "vms-\(count)", sizes: SyntheticTrace.imixSizes, destinations: count))
      point.options.vms = (0..<count).map { ReplayOptions.VM(name: "vm\($0)", address: .local($0 + 1)) }
    }
  }

  private var queues: Part {
    line(.queues, [1, 2, 4], frames: framesOfUser) { count, point in point.options.vms[0].queues = count }
  }

  private var rules: Part {
    line(.rules, [0, 1, 10, 100, 1000, 8000], frames: "64-byte frames, each matching a rule") { count, point in
      point.trace = .made(SyntheticTrace(name: "rules-\(count)", sizes: [64], flows: count > 0 ? count : 64))
      point.options.rules = (0..<count).compactMap { try? Rule(parsing: SyntheticTrace.rule(forFlow: $0, vm: "vm0")) }
    }
  }

  private var ring: Part {
    line(.ring, [64, 128, 256, 512, 1024, 2048, 4096], frames: framesOfUser) { count, point in point.options.ringSize = count }
  }

  private var buffers: Part {
    var points: [Point] = []
    for size in [1536, 4096, 16384] {
      for ring in [64, 256, 1024, 4096] {
        let options = replay {
          $0.ringSize = ring
          $0.vms[0].bufferBytes = size
        }
        points.append(Point(series: "\(size)-byte buffers", label: "\(ring) x \(size)", x: Double(ring * size), trace: usual, options: options, base: 0))
      }
    }
    points[0].base = nil
    return Part(section: .buffers, frames: framesOfUser, points: points)
  }

  private var memory: Part {
    line(.memory, [8, 32, 128, 512, 2048].map { $0 << 20 }, frames: framesOfUser) { count, point in
      point.label = "\(count >> 20) MiB"
      point.options.guestMemory = count
    }
  }

  private var latency: Part {
    var points = [Point(series: "top speed", label: "highest", trace: usual, options: replay())]
    for percent in [10, 50, 90] {
      points.append(
        Point(series: "\(percent) %", label: "\(percent) %", x: Double(percent), trace: usual, options: replay(), share: Double(percent) / 100))
    }
    return Part(section: .latency, frames: framesOfUser, points: points)
  }

  // MARK: Parts of them

  /// Points along one quantity, each compared with the first.
  private func line(_ section: Section, _ values: [Int], frames: String, _ change: (Int, inout Point) -> Void) -> Part {
    let points = values.enumerated().map { index, value in
      var point = Point(series: "lent", label: "\(value)", x: Double(value), trace: usual, options: replay(), base: index > 0 ? 0 : nil)
      change(value, &point)
      return point
    }
    return Part(section: section, frames: frames, points: points)
  }

  private var usual: Point.Trace { options.files.isEmpty ? .made(.imix) : .files(options.files) }
  private var framesOfUser: String { options.files.isEmpty ? "IMIX" : options.files.map(Self.name).joined(separator: ", ") }

  /// A replay as all are, until its files are known.
  private func replay(mode: PathMode = .auto, _ change: (inout ReplayOptions) -> Void = { _ in }) -> ReplayOptions {
    var replay = ReplayOptions(files: [])
    replay.limit = .init(loops: .max, seconds: options.secondsPerSample)
    replay.vms = [ReplayOptions.VM(name: "vm0")]
    replay.mode = mode
    replay.mtu = options.mtu
    replay.verify = false
    replay.processors = options.processors
    change(&replay)
    return replay
  }

  /// A file's name without its folder.
  static func name(_ file: String) -> String { file.split(separator: "/").last.map(String.init) ?? file }
}
