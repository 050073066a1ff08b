internal import GuestMemory

/// A front-end's message as a value: sizes are exact, and nothing in it is checked against any state yet.
/// vhost-user, "Payload".
enum Message: Hashable {
  case getFeatures, setFeatures(UInt64), getProtocolFeatures, setProtocolFeatures(UInt64)
  case setOwner, resetOwner, resetDevice, getQueueNum, getMaxMemSlots
  case setMemTable([RegionDescription]), addMemReg(RegionDescription), remMemReg(RegionDescription)
  case setLogBase(LogDescription), setLogFd
  case setVringNum(VringState), setVringAddr(VringAddress), setVringBase(VringState), getVringBase(VringState)
  case setVringKick(VringDescriptor), setVringCall(VringDescriptor), setVringErr(VringDescriptor)
  case setVringEnable(VringState)
  case sendRarp(UInt64), netSetMtu(UInt64), setBackendReqFd
  case getConfig(ConfigAccess), setConfig(ConfigAccess)
  case getInflightFd(InflightDescription), setInflightFd(InflightDescription)

  /// Parses a payload. A request that is not built throws `unsupported`, whatever its payload.
  init(_ request: Request, _ payload: [UInt8]) throws(MessageError) {
    func exactly(_ expected: Int) throws(MessageError) -> ByteReader {
      guard payload.count == expected else { throw .wrongSize(request, UInt32(payload.count), expected: expected) }
      return ByteReader(payload)
    }
    func bare(_ message: Message) throws(MessageError) -> Message {
      _ = try exactly(0)
      return message
    }
    func number() throws(MessageError) -> UInt64 {
      var reader = try exactly(8)
      return reader.next()
    }
    func state() throws(MessageError) -> VringState {
      var reader = try exactly(8)
      return VringState(&reader)
    }
    func region() throws(MessageError) -> RegionDescription {
      var reader = try exactly(8 + RegionDescription.byteCount)
      let _: UInt64 = reader.next()
      return RegionDescription(&reader)
    }
    func descriptor() throws(MessageError) -> VringDescriptor { try VringDescriptor(request, number()) }

    switch request {
    case .getFeatures: self = try bare(.getFeatures)
    case .getProtocolFeatures: self = try bare(.getProtocolFeatures)
    case .setOwner: self = try bare(.setOwner)
    case .resetOwner: self = try bare(.resetOwner)
    case .resetDevice: self = try bare(.resetDevice)
    case .getQueueNum: self = try bare(.getQueueNum)
    case .getMaxMemSlots: self = try bare(.getMaxMemSlots)
    case .setLogFd: self = try bare(.setLogFd)
    case .setBackendReqFd: self = try bare(.setBackendReqFd)
    case .setFeatures: self = .setFeatures(try number())
    case .setProtocolFeatures: self = .setProtocolFeatures(try number())
    case .sendRarp: self = .sendRarp(try number())
    case .netSetMtu: self = .netSetMtu(try number())
    case .setMemTable: self = .setMemTable(try RegionDescription.table(payload))
    case .addMemReg: self = .addMemReg(try region())
    case .remMemReg: self = .remMemReg(try region())
    case .setLogBase:
      var reader = try exactly(16)
      self = .setLogBase(LogDescription(byteCount: reader.next(), offset: reader.next()))
    case .setVringNum: self = .setVringNum(try state())
    case .setVringBase: self = .setVringBase(try state())
    case .getVringBase: self = .getVringBase(try state())
    case .setVringEnable: self = .setVringEnable(try state())
    case .setVringAddr:
      var reader = try exactly(VringAddress.byteCount)
      self = .setVringAddr(VringAddress(&reader))
    case .setVringKick: self = .setVringKick(try descriptor())
    case .setVringCall: self = .setVringCall(try descriptor())
    case .setVringErr: self = .setVringErr(try descriptor())
    case .getConfig: self = .getConfig(try ConfigAccess(request, payload))
    case .setConfig: self = .setConfig(try ConfigAccess(request, payload))
    case .getInflightFd: self = .getInflightFd(try InflightDescription(request, payload))
    case .setInflightFd: self = .setInflightFd(try InflightDescription(request, payload))
    case .iotlbMsg, .setVringEndian, .createCryptoSession, .closeCryptoSession, .postcopyAdvise, .postcopyListen,
      .postcopyEnd, .gpuSetSocket, .vringKick, .setStatus, .getStatus, .getSharedObject,
      .setDeviceStateFd, .checkDeviceState, .getShmemConfig:
      throw .unsupported(request)
    }
  }

  /// How many descriptors go with it. vhost-user, "Communication".
  var descriptorCount: ClosedRange<Int> {
    switch self {
    case .setMemTable(let regions): regions.count...regions.count
    case .addMemReg, .setLogBase, .setLogFd, .setBackendReqFd, .setInflightFd: 1...1
    // To be tolerated, and closed unused.
    case .remMemReg: 0...1
    case .setVringKick(let ring), .setVringCall(let ring), .setVringErr(let ring): ring.hasDescriptor ? 1...1 : 0...0
    default: 0...0
    }
  }
}

/// A ring's number, and another that means what the request says. vhost-user, "A vring state description".
struct VringState: Hashable {
  var index: UInt32
  var number: UInt32
  init(_ reader: inout ByteReader) {
    index = reader.next()
    number = reader.next()
  }
}

/// Where a ring lies, as the front-end sees it. vhost-user, "A vring address description".
struct VringAddress: Hashable {
  static let byteCount = 40
  var index: UInt32
  /// Bit 0, VHOST_VRING_F_LOG: writes to the used ring are to be logged at `log`.
  var flags: UInt32
  var descriptor: FrontendAddress
  var used: FrontendAddress
  var available: FrontendAddress
  var log: GuestAddress
  init(_ reader: inout ByteReader) {
    index = reader.next()
    flags = reader.next()
    descriptor = FrontendAddress(reader.next())
    used = FrontendAddress(reader.next())
    available = FrontendAddress(reader.next())
    log = GuestAddress(reader.next())
  }
}

/// A ring's number, and whether a descriptor comes along. vhost-user, VHOST_USER_SET_VRING_KICK.
struct VringDescriptor: Hashable {
  var index: UInt32
  var hasDescriptor: Bool
  init(_ request: Request, _ value: UInt64) throws(MessageError) {
    guard value >> 9 == 0 else { throw .reservedBits(request, value) }
    index = UInt32(value & 0xFF)
    hasDescriptor = value & 0x100 == 0
  }
}

/// A piece of the guest's memory. vhost-user, "Memory region description".
struct RegionDescription: Hashable {
  static let byteCount = 32
  /// The most in one table: the specification has room for no more.
  static let mostInTable = 8

  var guestStart: GuestAddress
  var byteCount: UInt64
  var frontendStart: FrontendAddress
  /// Where it begins in its file, in bytes.
  var offset: UInt64
  init(_ reader: inout ByteReader) {
    guestStart = GuestAddress(reader.next())
    byteCount = reader.next()
    frontendStart = FrontendAddress(reader.next())
    offset = reader.next()
  }

  static func table(_ payload: [UInt8]) throws(MessageError) -> [RegionDescription] {
    guard payload.count >= 8 else { throw .wrongSize(.setMemTable, UInt32(payload.count), expected: 8) }
    var reader = ByteReader(payload)
    let count: UInt32 = reader.next()
    let _: UInt32 = reader.next()
    guard count <= mostInTable else { throw .tooManyRegions(Int(count), limit: mostInTable) }
    let expected = 8 + Int(count) * byteCount
    guard payload.count == expected else { throw .wrongSize(.setMemTable, UInt32(payload.count), expected: expected) }
    return (0..<count).map { _ in RegionDescription(&reader) }
  }
}

/// Where in a file written pages are marked. vhost-user, "Log description".
struct LogDescription: Hashable {
  var byteCount: UInt64
  var offset: UInt64
}

/// Bytes of the configuration space. vhost-user, "Virtio device config space".
struct ConfigAccess: Hashable {
  /// Of the space that a front-end may ask for, in bytes.
  static let largest: UInt32 = 256
  var offset: UInt32
  var flags: UInt32
  var bytes: [UInt8]
  init(_ request: Request, _ payload: [UInt8]) throws(MessageError) {
    guard payload.count >= 12 else { throw .wrongSize(request, UInt32(payload.count), expected: 12) }
    var reader = ByteReader(payload)
    offset = reader.next()
    let size: UInt32 = reader.next()
    flags = reader.next()
    guard reader.count == Int(size) else {
      throw .wrongSize(request, UInt32(payload.count), expected: 12 + Int(size))
    }
    bytes = reader.bytes()
  }
}

/// Where a region for what is in flight lies, and for how many rings of how many entries it is. vhost-user, "Inflight
/// description".
struct InflightDescription: Hashable {
  /// By the specification; senders whose compilers pad it send 24, of which the last four mean nothing.
  static let byteCounts = [20, 24]
  var byteCount: UInt64
  var offset: UInt64
  var ringCount: UInt16
  var ringSize: UInt16
  /// Of the message: its answer has as many.
  let payloadBytes: Int
  init(_ request: Request, _ payload: [UInt8]) throws(MessageError) {
    guard Self.byteCounts.contains(payload.count) else {
      throw .wrongSize(request, UInt32(payload.count), expected: Self.byteCounts[0])
    }
    payloadBytes = payload.count
    var reader = ByteReader(payload)
    byteCount = reader.next()
    offset = reader.next()
    ringCount = reader.next()
    ringSize = reader.next()
  }

  var bytes: [UInt8] {
    var result: [UInt8] = []
    result.put(byteCount)
    result.put(offset)
    result.put(ringCount)
    result.put(ringSize)
    return result + [UInt8](repeating: 0, count: payloadBytes - result.count)
  }
}
