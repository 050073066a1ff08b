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
    public var switched: UInt64
    public var replicated: UInt64
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
    vms = status.vms.mapValues { vm in
      VM(
        receive: Direction(
          lent: traffic(vm.receive.lent), bounced: traffic(vm.receive.bounced), bounced_by: vm.receive.bounced_by,
          dropped_by: vm.receive.dropped_by),
        transmit: Direction(
          lent: traffic(vm.transmit.lent), bounced: traffic(vm.transmit.bounced), bounced_by: vm.transmit.bounced_by,
          dropped_by: vm.transmit.dropped_by))
    }
  }
}
