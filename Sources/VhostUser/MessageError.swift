public import GuestMemory
public import Linux
internal import Virtio

/// What is wrong with a front-end's message: which, and with what numbers.
public enum MessageError: Error, Hashable, Sendable {
  // The stream of messages itself.
  case unsupportedVersion(UInt32, request: UInt32)
  case replyFromFrontend(request: UInt32)
  case reservedFlags(UInt32, request: UInt32)
  case oversized(UInt32, request: UInt32, limit: UInt32)
  case wrongSize(Request, UInt32, expected: Int)
  /// Descriptors that do not come with a header's first byte.
  case strayDescriptors(count: Int)
  /// Control data that is not descriptors, or more descriptors than arrived.
  case foreignControlData
  case wrongDescriptorCount(Request, Int, expected: ClosedRange<Int>)
  // What was asked for.
  case unknownRequest(UInt32)
  case unsupported(Request)
  case notNegotiated(Request, ProtocolFeatures)
  /// SET_VRING_ENABLE, after features were set without VHOST_USER_F_PROTOCOL_FEATURES.
  case enableNotNegotiated
  case featuresNotOffered(UInt64)
  case protocolFeaturesNotOffered(ProtocolFeatures)
  /// Features may not change while a ring runs.
  case changedWhileRunning(Request)
  case reservedBits(Request, UInt64)
  case wrongDescriptor(Request, FileStatus.Kind, needed: Need)
  // Memory and its log.
  case badRegion(GuestAddress, FrontendAddress, byteCount: UInt64, offset: UInt64)
  case regionsOverlap(GuestAddress, GuestAddress)
  case frontendRegionsOverlap(FrontendAddress, FrontendAddress)
  case tooManyRegions(Int, limit: Int)
  case tooMuchMemory(UInt64, limit: UInt64)
  case noSuchRegion(GuestAddress, FrontendAddress, byteCount: UInt64)
  case memory(MemoryError)
  case badLog(byteCount: UInt64, offset: UInt64, fileBytes: Int)
  case logTooSmall(byteCount: UInt64, needed: UInt64)
  case tooManyInflight(limit: Int)
  case badInflight(rings: UInt16, size: UInt16, limit: Int)
  case badInflightPlace(byteCount: UInt64, offset: UInt64, fileBytes: Int, needed: Int)
  // Rings.
  case noSuchRing(Request, UInt32, count: Int)
  case badEnable(UInt32, ring: Int)
  case ringRuns(Request, ring: Int)
  case badRing(Int, RingProblem)
  // The network.
  case badMTU(UInt64)
  case mtuRefused(Int)
  case badConfigRange(offset: UInt32, byteCount: Int)
  case configIsReadOnly
  // What lies below.
  case device(RingRefusal)
  case system(SystemError)

  /// What a descriptor has to be.
  public enum Need: String, Hashable, Sendable {
    case event = "an eventfd"
    case memory = "a file of shared memory or huge pages that can be read and written"
    case socket = "a Unix stream socket made by socketpair(2)"
  }
}

extension MessageError {
  /// What follows from an error, for the connection it came on.
  enum Consequence: Hashable {
    /// The front-end cannot be followed any longer, or cannot be told: the connection ends.
    case close
    /// It is told if it asked for an answer, and the connection goes on; if not, it would go on with something that
    /// is not so, and the connection ends.
    case refuse
    /// It is told if it asked for an answer. The connection goes on in any case: the value is the guest's, and the
    /// ring it is for stays as it was or does not start.
    case ring
  }

  /// The one place that says which error ends what.
  var consequence: Consequence {
    switch self {
    case .unsupportedVersion, .replyFromFrontend, .reservedFlags, .oversized, .wrongSize, .strayDescriptors,
      .foreignControlData, .wrongDescriptorCount:
      .close
    case .unknownRequest, .unsupported, .notNegotiated, .enableNotNegotiated, .featuresNotOffered,
      .protocolFeaturesNotOffered, .changedWhileRunning, .reservedBits, .wrongDescriptor, .badRegion, .regionsOverlap,
      .frontendRegionsOverlap, .tooManyRegions, .tooMuchMemory, .noSuchRegion, .memory, .badLog, .logTooSmall,
      .badInflight, .badInflightPlace, .tooManyInflight,
      .noSuchRing, .badEnable, .badMTU, .mtuRefused, .badConfigRange, .configIsReadOnly, .device, .system:
      .refuse
    case .ringRuns, .badRing: .ring
    }
  }
}

extension MessageError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .unsupportedVersion(let version, let request): "\(name(request)): version \(version) of the protocol; only 1 is known"
    case .replyFromFrontend(let request): "\(name(request)): marked as a reply, and nothing was asked of the front-end"
    case .reservedFlags(let flags, let request): "\(name(request)): reserved flags are set (0x\(hexadecimal(UInt64(flags))))"
    case .oversized(let size, let request, let limit): "\(name(request)): a payload of \(size) bytes; at most \(limit)"
    case .wrongSize(let request, let size, let expected): "\(request): a payload of \(size) bytes, not \(expected)"
    case .strayDescriptors(let count): "\(count) descriptors that came in the middle of a message"
    case .foreignControlData: "control data that is not descriptors, or descriptors that were lost"
    case .wrongDescriptorCount(let request, let found, let expected):
      "\(request): \(found) descriptors, not \(expected.count == 1 ? "\(expected.lowerBound)" : "\(expected.lowerBound) to \(expected.upperBound)")"
    case .unknownRequest(let request): "request \(request) is unknown"
    case .unsupported(let request): "\(request): not supported, and not offered"
    case .notNegotiated(let request, let feature): "\(request): needs \(feature), which was not negotiated"
    case .enableNotNegotiated: "SET_VRING_ENABLE: needs VHOST_USER_F_PROTOCOL_FEATURES, which was not acknowledged"
    case .featuresNotOffered(let bits): "SET_FEATURES: \(Features(rawValue: bits).text) was not offered"
    case .protocolFeaturesNotOffered(let features): "SET_PROTOCOL_FEATURES: \(features) was not offered"
    case .changedWhileRunning(let request): "\(request): may not change while a ring runs"
    case .reservedBits(let request, let value): "\(request): reserved bits are set (0x\(hexadecimal(value)))"
    case .wrongDescriptor(let request, let kind, let need): "\(request): \(kind.rawValue) came, not \(need.rawValue)"
    case .badRegion(let guest, let frontend, let count, let offset):
      "memory region at \(guest), for the front-end at \(frontend), of \(count) bytes from \(offset) on: empty, past the end of an address space, or on a page's wrong part"
    case .regionsOverlap(let a, let b): "memory regions at \(a) and \(b) overlap"
    case .frontendRegionsOverlap(let a, let b): "memory regions that the front-end has at \(a) and \(b) overlap"
    case .tooManyRegions(let count, let limit): "\(count) memory regions; at most \(limit)"
    case .tooMuchMemory(let count, let limit): "\(count) bytes of guest memory; at most \(limit) by this VM's memory-limit"
    case .noSuchRegion(let guest, let frontend, let count):
      "no memory region at \(guest), for the front-end at \(frontend), of \(count) bytes"
    case .memory(let error): "\(error)"
    case .badLog(let count, let offset, let size): "SET_LOG_BASE: \(count) bytes from \(offset) on are not in a file of \(size)"
    case .logTooSmall(let count, let needed): "SET_LOG_BASE: a log of \(count) bytes; the guest's memory needs \(needed)"
    case .badInflight(let rings, let size, let limit):
      "a region for what is in flight in \(rings) rings of \(size) entries; must be 1 to \(limit) rings, of 1 to 32768"
    case .tooManyInflight(let limit): "GET_INFLIGHT_FD: more than \(limit) regions; use those that there are"
    case .badInflightPlace(let count, let offset, let size, let needed):
      "SET_INFLIGHT_FD: \(count) bytes from \(offset) on, in a file of \(size): not \(needed) on a whole page"
    case .noSuchRing(let request, let index, let count):
      "\(request): ring \(index) of \(count): the front-end has more than \(count / 2) queue pair\(count == 2 ? "" : "s")"
    case .badEnable(let value, let ring): "SET_VRING_ENABLE: \(value) for ring \(ring); must be 0 or 1"
    case .ringRuns(let request, let ring): "\(request): ring \(ring) runs; stop it first"
    case .badRing(let ring, let problem): "ring \(ring): \(problem)"
    case .badMTU(let value): "NET_SET_MTU: \(value); must be 68 to 65535"
    case .mtuRefused(let value): "NET_SET_MTU: the device cannot have an MTU of \(value)"
    case .badConfigRange(let offset, let count):
      "\(count) bytes of configuration from \(offset) on; there are \(ConfigAccess.largest)"
    case .configIsReadOnly: "SET_CONFIG: nothing in it can be written"
    case .device(let refusal): "\(refusal)"
    case .system(let error): "\(error)"
    }
  }
}

private func name(_ request: UInt32) -> String { Request(rawValue: request).map { "\($0)" } ?? "request \(request)" }
private func hexadecimal(_ value: UInt64) -> String { String(value, radix: 16) }
