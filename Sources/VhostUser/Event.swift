internal import GuestMemory
public import Virtio

/// What changed on a socket, for who keeps the log. Each is told once, when it is so.
public enum Event: Sendable {
  case connected
  case disconnected(DisconnectReason)
  case features(Features, ProtocolFeatures)
  case memory(regionCount: Int, byteCount: UInt64, shrinkable: Int)
  case ringStarted(Int, size: Int, isPacked: Bool, base: RingBase, isEnabled: Bool)
  case ringStopped(Int, base: RingBase)
  case ringEnabled(Int, Bool)
  /// It could run by what was said of it, and cannot. Its error descriptor was raised.
  case ringRefused(Int, RingProblem)
  /// Written pages are marked from now on; or no longer.
  case logging(Bool)
  /// There is a region for what is in flight from now on, for so many rings. It was another program's, and begins anew.
  case inflight(ringCount: Int, wasForeign: Bool)
  case mtu(Int)
  case reset
  /// A message was refused. The connection goes on, unless `disconnected` follows.
  case refused(MessageError)
}

/// Why a connection ended.
public enum DisconnectReason: Hashable, Sendable {
  case closedByFrontend
  /// In the middle of a message.
  case cutShort
  case error(MessageError)
  /// No message came, or not all of one, or a reply was not read, in the time that is allowed.
  case timedOut
  /// A file of guest memory, of the log, or of what is in flight, was made shorter while it was in use.
  case truncated
  /// The device cannot serve the connection: a worker does not answer, or a queue of the NIC does not stop.
  case device(RingRefusal)
  /// Descriptors that it sent could not be closed in the time that is allowed: their owner delays it.
  case descriptorsNotClosed
  case closedHere
}

extension DisconnectReason {
  /// Whether the front-end did something that it must not do.
  public var isViolation: Bool {
    switch self {
    case .closedByFrontend, .closedHere, .device: false
    case .cutShort, .error, .timedOut, .truncated, .descriptorsNotClosed: true
    }
  }
}

extension Event: CustomStringConvertible {
  public var description: String {
    switch self {
    case .connected: "front-end connected"
    case .disconnected(let reason): "front-end disconnected: \(reason)"
    case .features(let features, let protocolFeatures):
      "features \(features.text); protocol features \(protocolFeatures)"
    case .memory(0, _, _): "no guest memory"
    case .memory(let count, let bytes, let shrinkable):
      "guest memory: \(count) regions, \(bytes) bytes" + (shrinkable > 0 ? "; \(shrinkable) could be truncated by the front-end" : "")
    case .ringStarted(let ring, let size, let isPacked, let base, let isEnabled):
      "ring \(ring) started: \(size) entries, \(isPacked ? "packed" : "split"), base \(base.text(isPacked)), \(isEnabled ? "enabled" : "disabled")"
    case .ringStopped(let ring, let base): "ring \(ring) stopped at \(base.available)"
    case .ringEnabled(let ring, let isEnabled): "ring \(ring) \(isEnabled ? "enabled" : "disabled")"
    case .ringRefused(let ring, let problem): "ring \(ring) cannot run: \(problem)"
    case .logging(let isOn): isOn ? "written pages are marked" : "written pages are no longer marked"
    case .inflight(let count, false): "what is in flight is kept by the front-end, for \(count) rings"
    case .inflight(let count, true):
      "what is in flight is kept by the front-end, for \(count) rings; what another program left there means nothing here"
    case .mtu(let count): "MTU \(count)"
    case .reset: "device reset"
    case .refused(let error): "message refused: \(error)"
    }
  }
}

extension DisconnectReason: CustomStringConvertible {
  public var description: String {
    switch self {
    case .closedByFrontend: "closed by the front-end"
    case .cutShort: "closed by the front-end in the middle of a message"
    case .error(let error): "\(error)"
    case .timedOut: "the front-end did not speak, or did not listen, in time"
    case .truncated: "guest memory, the log or what is in flight was truncated while it was in use"
    case .device(let refusal): "\(refusal)"
    case .descriptorsNotClosed: "descriptors that the front-end sent cannot be closed: closing them blocks"
    case .closedHere: "closed here"
    }
  }
}

extension RingBase {
  fileprivate func text(_ isPacked: Bool) -> String {
    isPacked ? "\(available)/\(availableWrap ? 1 : 0) and \(used)/\(usedWrap ? 1 : 0)" : "\(available)"
  }
}
