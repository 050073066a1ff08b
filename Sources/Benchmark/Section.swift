/// A question that a benchmark answers.
public enum Section: String, CaseIterable, Sendable, Codable {
  case rate, size, vms, queues, rules, ring, buffers, memory, latency

  public var title: String {
    switch self {
    case .rate: "Rate"
    case .size: "Frame size"
    case .vms: "Virtual machines"
    case .queues: "Queues"
    case .rules: "Rules"
    case .ring: "Ring size"
    case .buffers: "Posted bytes"
    case .memory: "Guest memory"
    case .latency: "Latency"
    }
  }

  /// What is looked at, in a sentence.
  public var question: String {
    switch self {
    case .rate: "frames a second of a trace at top speed, lent against copied"
    case .size: "what the datapath costs a frame, by the frame's size, lent against copied"
    case .vms: "the cost of a frame where IMIX goes to several VMs in turn"
    case .queues: "the cost of a frame where one VM has several queues"
    case .rules: "the cost of a frame under exact five-tuple rules, each frame matching one"
    case .ring: "the cost of a frame by the entries of the guest's ring"
    case .buffers: "the cost of a frame by the bytes that the guest has posted: ring size times buffer size"
    case .memory: "the cost of a frame by the guest's memory, over which its buffers are spread"
    case .latency: "from when a frame was due until the guest can see it, at 10, 50 and 90 % of the highest rate"
    }
  }

  /// What its points differ in.
  public var quantity: (name: String, unit: String?) {
    switch self {
    case .rate: ("trace", nil)
    case .size: ("frame size", "B")
    case .vms: ("VMs", nil)
    case .queues: ("queues", nil)
    case .rules: ("rules", nil)
    case .ring: ("ring size", "entries")
    case .buffers: ("posted", "B")
    case .memory: ("guest memory", "B")
    case .latency: ("share of the highest rate", "%")
    }
  }
}
