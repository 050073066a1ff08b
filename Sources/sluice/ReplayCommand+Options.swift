import Datapath
import Replay

/// From what was typed to `ReplayOptions`. Every value is looked at here, so that each refusal names its option;
/// what only makes sense together is refused by `Replay`.
extension ReplayCommand {
  func options() throws(Failure) -> ReplayOptions {
    var options = ReplayOptions(files: traces.files)
    options.filter = traces.filter
    options.allowsTruncated = traces.allowTruncated
    options.preload = traces.preload
    options.limit = try limit()
    options.pace = try SpeedOption.parse(pace.speed)
    options.ringSize = try ringSize()
    options.mtu = try Quantity.count("--mtu", guests.mtu, in: 68...9710)
    if let text = guests.guestMemory {
      guard let count = Quantity.count(text), (1 << 20...16 << 30).contains(count) else {
        throw .usage("--guest-memory", text, "must be from 1Mi to 16Gi bytes; write it like 256Mi")
      }
      options.guestMemory = Int(count)
    }
    options.vms = try vms()
    for file in guests.rules { options.rules += try RuleSetOptions.read(file) }
    options.captures = try captures(of: options.vms)
    guard let mode = PathMode(name: datapath.mode) else {
      throw .usage("--mode", datapath.mode, "no such mode; modes are \(PathMode.allCases.map(\.name).joined(separator: ", "))")
    }
    options.mode = mode
    if let text = datapath.cpus { options.processors = try ProcessorsOption.parse(text) }
    options.hugePages = datapath.hugePages
    options.isDeterministic = datapath.deterministic
    guard let seed = Quantity.count(datapath.seed) else {
      throw .usage("--seed", datapath.seed, "must be a whole number below 2^64; 0x for hexadecimal")
    }
    options.seed = seed
    options.eventLog = datapath.eventLog
    if let path = datapath.eventLog, !datapath.deterministic {
      throw .usage("--event-log", path, "only a run with --deterministic has events to compare; give that too")
    }
    options.verify = output.verify
    try OutputFiles.check(inputs: traces.files, outputs: outputs(options))
    return options
  }

  private func outputs(_ options: ReplayOptions) -> [(option: String, value: String, path: String)] {
    var files = zip(guests.captures, options.captures).map { (option: "--write", value: $0, path: $1.path) }
    if let path = datapath.eventLog { files.append((option: "--event-log", value: path, path: path)) }
    return files
  }

  private func limit() throws(Failure) -> ReplayOptions.Limit {
    var limit = ReplayOptions.Limit()
    if let text = pace.duration {
      guard let seconds = Quantity.seconds(text), seconds > 0, seconds <= 1e9 else {
        throw .usage("--duration", text, "not a time more than 0; write it like 500ms, 10s, 2m or 1h")
      }
      limit.seconds = seconds
      // A pipe cannot be read twice.
      limit.loops = traces.files.contains("-") ? 1 : .max
    }
    if let text = pace.loops { limit.loops = try Quantity.count("--loop", text, in: 1...Int.max, mend: "; to go on until a time, give --duration") }
    return limit
  }

  private func ringSize() throws(Failure) -> Int {
    guard let count = Quantity.count(guests.ringSize), (2...32768).contains(count), count & (count - 1) == 0 else {
      throw .usage("--ring-size", guests.ringSize, "must be a power of two from 2 to 32768")
    }
    return Int(count)
  }

  private func vms() throws(Failure) -> [ReplayOptions.VM] {
    guard let queues = VMOption.queueCount(guests.queues) else {
      throw .usage("--queues", guests.queues, "must be 1, 2 or 4")
    }
    if guests.vms.isEmpty { return [ReplayOptions.VM(name: "vm0", queues: queues)] }
    var vms: [ReplayOptions.VM] = []
    for text in guests.vms {
      let vm = try VMOption.parse(text, queues: queues)
      if vms.contains(where: { $0.name == vm.name }) {
        throw .usage("--vm", text, "there is a VM \"\(vm.name)\" already; give each a name of its own")
      }
      vms.append(vm)
    }
    return vms
  }

  private func captures(of vms: [ReplayOptions.VM]) throws(Failure) -> [(vm: String, path: String)] {
    var captures: [(vm: String, path: String)] = []
    for text in guests.captures { captures.append(try WriteOption.parse(text, vms: vms.map(\.name))) }
    return captures
  }
}
