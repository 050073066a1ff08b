public import Control

/// What only ever grows, for rates: the body of an answer to `/v1/stats`. Two of them and the time between give one.
public struct StatsReport: Codable, Hashable, Sendable {
  public var schema = 1
  public var pid: Int
  /// Seconds since the back-end started: less than in an earlier report if it was started anew.
  public var uptime_s: Double
  public var nic: NIC
  public var vm_order: [String]
  public var vms: [String: VM]

  public struct NIC: Codable, Hashable, Sendable {
    public var received: Traffic
    public var sent: Traffic
    public var switched: UInt64?
    public var replicated: UInt64?
    public var dropped_by: [String: UInt64]
  }
  public struct VM: Codable, Hashable, Sendable {
    public var receive: Direction
    public var transmit: Direction
  }
  public struct Direction: Codable, Hashable, Sendable {
    public var lent: Traffic
    public var bounced: Traffic
    public var bounced_by: [String: UInt64]
    public var dropped_by: [String: UInt64]
  }
  public struct Traffic: Codable, Hashable, Sendable {
    public var frames: UInt64
    public var bytes: UInt64
  }

  public init(_ status: StatusReport) {
    func traffic(_ traffic: StatusReport.Traffic) -> Traffic { Traffic(frames: traffic.frames, bytes: traffic.bytes) }
    (pid, uptime_s, vm_order) = (status.pid, status.uptime_s, status.vm_order)
    nic = NIC(
      received: traffic(status.nic.received), sent: traffic(status.nic.sent), switched: status.nic.switched,
      replicated: status.nic.replicated, dropped_by: status.nic.dropped_by)
    func direction(_ frames: StatusReport.Frames) -> Direction {
      Direction(
        lent: traffic(frames.lent), bounced: traffic(frames.bounced), bounced_by: frames.bounced_by, dropped_by: frames.dropped_by)
    }
    vms = status.vms.mapValues { VM(receive: direction($0.receive), transmit: direction($0.transmit)) }
  }
}
