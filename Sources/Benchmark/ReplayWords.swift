internal import Datapath
internal import Replay
internal import Simulation

/// A point as the command line that replays it.
public enum ReplayWords {
  /// - Parameter rate: frames a second at which it was sent; nil: top speed.
  static func command(of point: Point, rate: Double?) -> String {
    let options = point.options
    var words = ["sluice replay"]
    switch point.trace {
    case .files(let files): words += files.map(quoted)
    case .made(let trace): words.append("\(trace.name).pcap")
    }
    if let seconds = options.limit.seconds { words.append("--duration \(Int((seconds * 1000).rounded()))ms") }
    words.append("--no-verify --preload")
    if let rate { words.append("--speed pps=\(Int(rate))") }
    if options.mode != .auto { words.append("--mode \(options.mode.name)") }
    if options.mtu != 1500 { words.append("--mtu \(options.mtu)") }
    if options.ringSize != 1024 { words.append("--ring-size \(options.ringSize)") }
    if let memory = options.guestMemory { words.append("--guest-memory \(memory >> 20)Mi") }
    if options.vms.count > 1 {
      words.append("$(seq -f '--vm vm%g' \(options.vms.count))")
    } else if let vm = options.vms.first {
      if vm.queues != 1 { words.append("--queues \(vm.queues)") }
      if let size = vm.bufferBytes { words.append("--vm vm0,buffers=\(vm.buffers.rawValue):\(size)") }
    }
    if !options.rules.isEmpty { words.append("--rules rules-\(options.rules.count).rules") }
    return words.joined(separator: " ")
  }

  /// As a shell takes it.
  public static func quoted(_ text: String) -> String {
    let isPlain = !text.isEmpty && text.unicodeScalars.allSatisfy { "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-+=:,@%".unicodeScalars.contains($0) }
    return isPlain ? text : "'" + text.replacing("'", with: #"'\''"#) + "'"
  }
}
