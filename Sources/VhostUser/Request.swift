/// What a front-end can ask for. vhost-user, "Front-end message types".
public enum Request: UInt32, CaseIterable, Hashable, Sendable, CustomStringConvertible {
  case getFeatures = 1, setFeatures, setOwner, resetOwner, setMemTable, setLogBase, setLogFd
  case setVringNum = 8, setVringAddr, setVringBase, getVringBase, setVringKick, setVringCall, setVringErr
  case getProtocolFeatures = 15, setProtocolFeatures, getQueueNum, setVringEnable, sendRarp, netSetMtu
  case setBackendReqFd = 21, iotlbMsg, setVringEndian, getConfig, setConfig
  case createCryptoSession = 26, closeCryptoSession, postcopyAdvise, postcopyListen, postcopyEnd
  case getInflightFd = 31, setInflightFd, gpuSetSocket, resetDevice, vringKick, getMaxMemSlots, addMemReg, remMemReg
  case setStatus = 39, getStatus, getSharedObject, setDeviceStateFd, checkDeviceState, getShmemConfig

  private static let names: [Substring] = """
    GET_FEATURES SET_FEATURES SET_OWNER RESET_OWNER SET_MEM_TABLE SET_LOG_BASE SET_LOG_FD \
    SET_VRING_NUM SET_VRING_ADDR SET_VRING_BASE GET_VRING_BASE SET_VRING_KICK SET_VRING_CALL SET_VRING_ERR \
    GET_PROTOCOL_FEATURES SET_PROTOCOL_FEATURES GET_QUEUE_NUM SET_VRING_ENABLE SEND_RARP NET_SET_MTU \
    SET_BACKEND_REQ_FD IOTLB_MSG SET_VRING_ENDIAN GET_CONFIG SET_CONFIG \
    CREATE_CRYPTO_SESSION CLOSE_CRYPTO_SESSION POSTCOPY_ADVISE POSTCOPY_LISTEN POSTCOPY_END \
    GET_INFLIGHT_FD SET_INFLIGHT_FD GPU_SET_SOCKET RESET_DEVICE VRING_KICK GET_MAX_MEM_SLOTS ADD_MEM_REG REM_MEM_REG \
    SET_STATUS GET_STATUS GET_SHARED_OBJECT SET_DEVICE_STATE_FD CHECK_DEVICE_STATE GET_SHMEM_CONFIG
    """.split(separator: " ")

  /// The specification's name without VHOST_USER_.
  public var description: String { String(Self.names[Int(rawValue) - 1]) }

  /// The protocol feature without which a front-end must not ask; nil: none is needed, or another rule holds.
  var gate: ProtocolFeatures? {
    switch self {
    case .setLogBase, .setLogFd: .logShmfd
    case .getQueueNum: .mq
    case .sendRarp: .rarp
    case .netSetMtu: .netMTU
    case .setBackendReqFd: .backendReq
    case .getConfig, .setConfig: .config
    case .getInflightFd, .setInflightFd: .inflightShmfd
    case .resetDevice: .resetDevice
    case .getMaxMemSlots, .addMemReg, .remMemReg: .configureMemSlots
    default: nil
    }
  }

  /// Whether its answer is a body of its own, so that there is no other one, asked for or not.
  var hasReplyBody: Bool {
    switch self {
    case .getFeatures, .getProtocolFeatures, .getQueueNum, .getVringBase, .setLogBase, .getConfig, .getMaxMemSlots,
      .getInflightFd: true
    default: false
    }
  }
}
