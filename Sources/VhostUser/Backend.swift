internal import GuestMemory
public import Linux
public import Virtio

/// The back-end's side of one vhost-user socket: front-ends connect to it, one after the other, and say which rings
/// are to run in what memory; the device behind does so.
///
/// It belongs to the control thread, and never blocks. Its owner waits for the socket with a poller, calls `readable`,
/// `writable` and `expire`, and gives the time, in nanoseconds of the monotonic clock.
///
/// Every message may come at any time and again; what cannot be done then is refused, and leaves everything as it was.
/// `MessageError.consequence` says what follows for the connection. `Readings.md` says where the specification leaves
/// room, and where we depart from it. Whoever lets a back-end go disconnects it first.
public final class Backend {
  public let offer: Offer
  let limits: Limits
  let device: any BackendDevice
  let report: (Event) -> Void

  private var connection: Connection?
  /// As acknowledged; nil before.
  public internal(set) var features: Features?
  public internal(set) var protocolFeatures: ProtocolFeatures = []
  var rings: [Ring]
  var memory = MemoryTable()
  var map: MemoryMap?
  var log: DirtyLog?
  /// The device has the log.
  var isLogging = false
  /// GET_INFLIGHT_FD, SET_INFLIGHT_FD: what the front-end keeps for our successor.
  var inflight: InflightRegion?
  /// Rings whose places are in a reply that is not wholly sent.
  private var untold: [Int] = []
  /// What CONFIG serves.
  public internal(set) var config: NetConfig?
  /// SET_BACKEND_REQ_FD: where we ask the front-end.
  var requests: UnixStream?
  /// Whether BACKEND_REQ is offered on this connection.
  private var offersRequests = true
  /// Closes every descriptor that came through this socket, and the connections themselves: their owner can make that
  /// take as long as it likes.
  public let reaper: Reaper
  /// Raising an error descriptor took long once: somebody waits for it many times over. From then on the reaper's thread does that.
  var errorsAreDear = false
  /// Files made by GET_INFLIGHT_FD: on this connection; and of this VM that count still, since when.
  var inflightFiles: (ofConnection: Int, ofVM: Int, since: UInt64) = (0, 0, 0)
  /// The front-end is to be told that the configuration has changed, as soon as it may be.
  var owesConfigChange = false
  /// The second that SEND_RARP was last counted in, and how many there were.
  var announcements: (second: UInt64, count: Int) = (0, 0)

  /// What its front-ends may still ask for, and the last time that was given here.
  private var budget = MessageBudget()
  private var latest: UInt64 = 0
  /// Measure how long a call takes, and what of the processor.
  private let clock: () -> UInt64
  private let workClock: () -> UInt64

  /// - Parameters:
  ///   - clock: nanoseconds, to measure how long a call takes.
  ///   - workClock: nanoseconds of a processor's time that the thread has used, to charge the VM for. Not the time for which it
  ///     waited: that a worker is slow to answer, or the machine busy, is not this VM's doing.
  ///   - report: told what changes, on the control thread. Not to call back.
  public init(
    _ offer: Offer, limits: Limits = Limits(), device: any BackendDevice, clock: @escaping () -> UInt64 = MonotonicClock.now,
    workClock: @escaping () -> UInt64 = ThreadClock.now,
    report: @escaping (Event) -> Void
  ) {
    (self.clock, self.workClock) = (clock, workClock)
    self.offer = offer
    self.limits = limits
    self.device = device
    self.report = report
    config = offer.config
    reaper = Reaper(limit: limits.mostDescriptors(ringCount: offer.ringCount))
    rings = [Ring](repeating: Ring(), count: offer.ringCount)
  }

  // MARK: The connection

  public var isConnected: Bool { connection != nil }
  /// True if nothing is read from the connection until descriptors of this VM have been closed: see `Reaper`. To be
  /// tried again after some milliseconds; waiting for readiness says nothing meanwhile.
  public var isHeldUp: Bool { connection?.isHeldUp == true }
  /// What to wait for readiness of; nil while nobody is connected.
  public var descriptorNumber: CInt? { connection?.number }
  /// Reading, or writing while a reply waits: then nothing is read.
  public var interest: Poller.Interest { connection?.hasUnsentReply == true ? .write : .read }
  /// When to call `expire`; nil: there is nothing that the front-end must do in time.
  public var deadline: UInt64? { connection?.deadline ?? nil }

  /// Takes up a connection. Precondition: there is none.
  ///
  /// - Parameter offersRequests: false if both ends of the connection come from socketpair(2): then the front-end's own
  ///   end cannot be told from a socket for requests, and BACKEND_REQ is not offered.
  public func connect(_ stream: consuming UnixStream, now: UInt64, offersRequests: Bool = true) {
    precondition(!isConnected, "one connection at a time")
    var stream = stream
    stream.entrust(to: reaper)
    self.offersRequests = offersRequests
    inflightFiles.ofConnection = 0
    connection = Connection(stream, limits, now: now)
    report(.connected)
  }

  /// Reads and does what is there, up to a number of messages and a time: then others have their turn, and this is to be
  /// called again. Nothing is read while `pause` says so. Answers whether the connection goes on.
  @discardableResult public func readable(now: UInt64) -> Bool {
    latest = now
    var left = limits.messagesPerTurn
    let start = clock()
    while left > 0, isConnected, budget.pause(at: now) == nil {
      left -= 1
      device.beginOperation()
      do throws(MessageError) { if try !step(now) { break } } catch { disconnect(.error(error)) }
      if clock() &- start >= limits.readableTime { break }
    }
    return isConnected
  }

  /// When `readable` is to be called again, in the time that is given to it; nil: when the socket is readable. Its front-end
  /// has sent more than its share of messages that others wait for. Do not wait for the socket meanwhile.
  public func pause(now: UInt64) -> UInt64? { budget.pause(at: now) }

  /// Sends more of a reply that waited. Answers whether the connection goes on.
  @discardableResult public func writable(now: UInt64) -> Bool {
    device.beginOperation()
    do throws(MessageError) {
      try connection?.flush(now: now)
      forgetToldPlaces()
    } catch { disconnect(.error(error)) }
    return isConnected
  }

  /// Ends the connection if the front-end was given time and it is over, or if it has taken back memory without saying
  /// so: to be called at the deadline, and every second or so. Answers whether the connection goes on.
  @discardableResult public func expire(now: UInt64) -> Bool {
    device.beginOperation()
    if let deadline, deadline <= now { disconnect(isHeldUp ? .descriptorsNotClosed : .timedOut) }
    checkRequests()
    if isTruncated { disconnect(.truncated) }
    return isConnected
  }

  /// Ends the connection: every ring stops, all memory is given back, and every descriptor goes to the reaper. When this
  /// returns, nothing of the front-end's is used.
  public func disconnect() {
    device.beginOperation()
    disconnect(.closedHere)
  }
  /// Ends the connection because the device cannot serve it.
  public func disconnect(because refusal: RingRefusal) {
    device.beginOperation()
    disconnect(.device(refusal))
  }

  func disconnect(_ reason: DisconnectReason) {
    guard isConnected else { return }
    let start = workClock()
    defer { budget.take(MessageBudget.cost(tokens: 1, nanoseconds: workClock() &- start), at: latest) }
    stop(Array(rings.indices), forgettingKick: true)
    // The front-end learns nothing from a closed connection.
    if let problem = forgetMemory() { report(.refused(.device(problem))) }
    forgetLog()
    (inflight, untold) = (nil, [])
    rings = [Ring](repeating: Ring(), count: offer.ringCount)
    (features, protocolFeatures) = (nil, [])
    requests = nil
    owesConfigChange = false
    connection?.shutDown()
    // Its descriptor may be another one's as soon as it is closed: the owner's poller is told before.
    let ended = connection.take()
    device.disconnected()
    report(.disconnected(reason))
    _ = consume ended
  }

  /// One message, if one is there.
  private func step(_ now: UInt64) throws(MessageError) -> Bool {
    guard let step = try connection?.next(now: now) else { return false }
    switch consume step {
    case .wait: return false
    case .end:
      disconnect(connection?.isInsideMessage == true ? .cutShort : .closedByFrontend)
      return false
    case .message(let header, let payload, let descriptors):
      try handle(header, payload, descriptors, now)
      return true
    }
  }

  /// On this connection.
  var offeredProtocolFeatures: ProtocolFeatures {
    offersRequests ? offer.protocolFeatures : offer.protocolFeatures.subtracting(.backendReq)
  }

  // MARK: One message

  /// What a message is answered with.
  enum Answer {
    /// Nothing, or 0 if an answer was asked for.
    case done
    case number(UInt64)
    case payload([UInt8])
    case payloadAndDescriptor([UInt8], SharedDescriptor)
  }

  private func handle(
    _ header: MessageHeader, _ payload: [UInt8], _ descriptors: consuming ReceivedDescriptors, _ now: UInt64
  ) throws(MessageError) {
    let start = workClock()
    defer {
      let tokens = Request(rawValue: header.request)?.tokens ?? 0
      budget.take(MessageBudget.cost(tokens: tokens, nanoseconds: workClock() &- start), at: now)
    }
    do throws(MessageError) {
      let answer = try self.answer(header, payload, descriptors, now)
      // Nothing is acknowledged that is not so.
      if let failure = device.takeFailure() { throw .device(failure) }
      switch answer {
      case .done: if header.needsReply { try reply(to: header, number: 0, now) }
      case .number(let value): try reply(to: header, number: value, now)
      case .payload(let bytes): try reply(to: header, bytes, now)
      case .payloadAndDescriptor(let bytes, let descriptor): try reply(to: header, bytes, with: descriptor, now)
      }
      forgetToldPlaces()
    } catch {
      report(.refused(error))
      try refuse(header, payload, error, now)
    }
  }

  /// All that has to be refused before it is looked at what a message asks for.
  private func answer(
    _ header: MessageHeader, _ payload: [UInt8], _ descriptors: consuming ReceivedDescriptors, _ now: UInt64
  ) throws(MessageError) -> Answer {
    guard let request = Request(rawValue: header.request) else { throw .unknownRequest(header.request) }
    if let gate = request.gate, !protocolFeatures.contains(gate) { throw .notNegotiated(request, gate) }
    let message = try Message(request, payload)
    guard message.descriptorCount.contains(descriptors.count) else {
      throw .wrongDescriptorCount(request, descriptors.count, expected: message.descriptorCount)
    }
    return try answer(message, request, &descriptors, now)
  }

  private func answer(
    _ message: Message, _ request: Request, _ descriptors: inout ReceivedDescriptors, _ now: UInt64
  ) throws(MessageError) -> Answer {
    switch message {
    case .getFeatures: return .number(offer.allFeatures.rawValue)
    case .setFeatures(let bits): try setFeatures(bits)
    case .getProtocolFeatures: return .number(offeredProtocolFeatures.rawValue)
    case .setProtocolFeatures(let bits): try setProtocolFeatures(bits)
    // One front-end at a time has the socket; it has nothing to say that connecting did not.
    case .setOwner: break
    case .resetOwner: disableAll()
    case .resetDevice: resetDevice()
    case .getQueueNum: return .number(UInt64(offer.ringCount))
    case .getMaxMemSlots: return .number(UInt64(offer.memorySlots))
    case .setMemTable(let regions): try adopt(memory.replaced(by: regions, &descriptors, request, limits: limits))
    case .addMemReg(let region):
      try adopt(
        memory.adding(region, &descriptors, slots: offer.memorySlots, tellers: offer.queuePairs, limits: limits))
    case .remMemReg(let region): try adopt(memory.removing(region))
    case .setLogBase(let place): return .payload(try setLogBase(place, descriptors.one(request)))
    // We do not raise it: the specification says that it may be used.
    case .setLogFd: _ = try descriptors.one(request).checkedEvent(request)
    case .setVringNum(let state): try setSize(state)
    case .setVringAddr(let address): try setAddress(address)
    case .setVringBase(let state): try setBase(state)
    case .getVringBase(let state):
      let payload = try stopForBase(state)
      untold.append(Int(state.index))
      return .payload(payload)
    case .setVringKick(let ring): try setKick(ring, try descriptors.event(request))
    case .setVringCall(let ring): try setCall(ring, try descriptors.event(request))
    case .setVringErr(let ring): try setError(ring, try descriptors.event(request))
    case .setVringEnable(let state): try setEnabled(state)
    case .sendRarp(let value): announce(value, now)
    case .netSetMtu(let value): try setMTU(value)
    case .setBackendReqFd: try setRequests(descriptors.one(request), request)
    case .getConfig(let access): return .payload(try getConfig(access))
    case .setConfig(let access): try setConfig(access)
    case .getInflightFd(let wanted):
      let (description, file) = try makeInflight(wanted, now)
      return .payloadAndDescriptor(description.bytes, file)
    case .setInflightFd(let description): try setInflight(description, descriptors.one(request))
    }
    return .done
  }

  /// Says no in the way that the message leaves for it. vhost-user, "VHOST_USER_PROTOCOL_F_REPLY_ACK".
  private func refuse(
    _ header: MessageHeader, _ payload: [UInt8], _ error: MessageError, _ now: UInt64
  ) throws(MessageError) {
    if case .badRing(let ring, _) = error { raiseError(of: ring) }
    let request = Request(rawValue: header.request)
    switch error.consequence {
    case .close: throw error
    case .refuse where request == .getConfig && protocolFeatures.contains(.config):
      // A configuration of no bytes is its error.
      try reply(to: header, Array(payload.prefix(4)) + [UInt8](repeating: 0, count: 8), now)
    // A front-end that waits for a body cannot be told that there is none.
    case .refuse where request?.hasReplyBody == true: throw error
    case .refuse where !header.needsReply: throw error
    case .refuse, .ring: if header.needsReply { try reply(to: header, number: 1, now) }
    }
  }

  private func reply(to header: MessageHeader, number: UInt64, _ now: UInt64) throws(MessageError) {
    var bytes: [UInt8] = []
    bytes.put(number)
    try reply(to: header, bytes, now)
  }

  private func reply(
    to header: MessageHeader, _ payload: [UInt8], with descriptor: SharedDescriptor? = nil, _ now: UInt64
  ) throws(MessageError) {
    let bytes = MessageHeader.bytes(header.request, flags: MessageHeader.replyFlag, payload: payload)
    try connection?.send(bytes, descriptor, now: now)
  }

  /// What lies in the socket reaches the front-end, whatever becomes of us.
  private func forgetToldPlaces() {
    guard !untold.isEmpty, connection?.hasUnsentReply == false else { return }
    for n in untold { device.forgetPlace(ring: n) }
    untold = []
  }
}

extension ReceivedDescriptors {
  /// The only one of a message that has one.
  mutating func one(_ request: Request) throws(MessageError) -> OwnedDescriptor {
    guard let descriptor = takeFirst() else { throw .wrongDescriptorCount(request, 0, expected: 1...1) }
    return descriptor
  }

  /// The eventfd of a message that may have one; nil if it has none.
  mutating func event(_ request: Request) throws(MessageError) -> SharedDescriptor? {
    guard let descriptor = takeFirst() else { return nil }
    return try descriptor.checkedEvent(request)
  }
}
