internal import Linux
internal import VhostUser
internal import Virtio

/// One VM's socket: who listens or connects, the connection that there is, and the device behind it.
///
/// Control thread only.
final class Session {
  let number: Int
  let vm: Configuration.VM
  let device: GuestDevice
  private let backend: Backend
  private let loop: ControlLoop
  private let log: (LogEvent) -> Void

  private var listener: Listener?
  private var listenerToken: UInt64?
  private var watched: (descriptor: CInt, token: UInt64, isWriting: Bool)?
  private var deadline: UInt64?
  private var isEnding = false
  /// Whether a failed attempt to connect was logged: not again before the next success.
  private var hasComplained = false
  /// Whether it was logged that connections wait: not again before the next connection.
  private var hasSaidHeldUp = false
  /// The connection is one of two sockets that were made connected: see `Backend.connect`.
  private var isInheritedPair = false

  private(set) var connections: UInt64 = 0
  /// Times that the front-end was not read for a while: it had sent more than its share of dear messages.
  private(set) var messagePauses: UInt64 = 0
  private(set) var peer: PeerCredentials?
  private(set) var lastViolation: String?
  /// By number, as last seen: nil for one that never ran.
  private(set) var rings: [RingView]
  private(set) var memory: (regions: Int, bytes: UInt64) = (0, 0)
  var features: Features { backend.features ?? [] }
  var protocolFeatures: ProtocolFeatures { backend.protocolFeatures }

  struct RingView {
    var state = "stopped"
    var format: String?
    var size: Int?
    var reason: String?
  }

  /// How often a listener that is not there is looked for, in milliseconds.
  private static let retryInterval: UInt64 = 100
  /// How often it is tried again to read from a connection that is held up, in milliseconds.
  private static let heldUpInterval: UInt64 = 5

  init(
    number: Int, vm: Configuration.VM, offer: Offer, device: GuestDevice, loop: ControlLoop, log: @escaping (LogEvent) -> Void
  ) {
    self.number = number
    self.vm = vm
    self.device = device
    self.loop = loop
    self.log = log
    rings = Array(repeating: RingView(), count: 2 * vm.queuePairs)
    var tell: (Event) -> Void = { _ in }
    var limits = Limits()
    limits.mostKeptFiles = device.mostKeptFiles
    (limits.mostGuestBytes, limits.largestRing) = (vm.memoryLimit, vm.ringSizeLimit)
    backend = Backend(offer, limits: limits, device: device) { tell($0) }
    tell = { [unowned self] in note($0) }
    device.ringFailed = { [weak self] ring, reason in
      loop.after(milliseconds: 0) { [weak self] in self?.pathStopped(ring: ring, reason: reason) }
    }
    device.connectionFailed = { [weak self] refusal in
      loop.after(milliseconds: 0) { [weak self] in self?.backend.disconnect(because: refusal) }
    }
    device.recovered = { [weak self] in loop.after(milliseconds: 0) { [weak self] in self?.retryRings() } }
    device.onControlThread = { work in loop.post(work) }
  }

  var connectionState: String {
    if backend.isConnected { return "connected" }
    if case .client = vm.endpoint { return "connecting" }
    return "listening"
  }
  var socketName: String {
    switch vm.endpoint {
    case .server(let socket): socket.path
    case .client(let path): path
    case .descriptor(let number): "fd \(number)"
    }
  }

  // MARK: Somebody to talk to

  /// Listens, or begins to look for the front-end.
  func open() throws(ServiceError) {
    switch vm.endpoint {
    case .server(let socket): try listen(socket)
    case .client: connect()
    case .descriptor(let number): try adopt(number)
    }
  }

  private func listen(_ socket: Configuration.Socket) throws(ServiceError) {
    var permissions = UnixListener.Permissions(mode: UInt32(socket.mode ?? 0o600))
    do {
      if let owner = socket.owner { permissions.owner = try Self.known(Accounts.user(owner), "user", owner) }
      if let group = socket.group { permissions.group = try Self.known(Accounts.group(group), "group", group) }
      try accept(on: Listener(try UnixListener(at: socket.path, permissions)))
    } catch { throw .socket(vm: vm.name, "\(error)") }
    log(LogEvent(.info, "listening", ["vm": vm.name, "socket": socket.path]))
  }

  private struct Unknown: Error, CustomStringConvertible {
    let description: String
  }
  private static func known(_ number: UInt32?, _ kind: String, _ name: String) throws -> UInt32 {
    guard let number else { throw Unknown(description: "there is no \(kind) \(name)") }
    return number
  }

  /// A socket that we were started with: one that listens, or one whose other end is the front-end.
  private func adopt(_ number: Int32) throws(ServiceError) {
    do {
      let descriptor = try OwnedDescriptor(inherited: number)
      if descriptor.isListening {
        try accept(on: Listener(try UnixListener(adopting: descriptor, path: "fd \(number)")))
      } else {
        isInheritedPair = descriptor.isUnnamedPair
        try take(try UnixStream(adopting: descriptor))
      }
    } catch { throw .socket(vm: vm.name, "descriptor \(number): \(error)") }
  }

  private func accept(on listener: Listener) throws(SystemError) {
    listener.socket.entrust(to: backend.reaper)
    self.listener = listener
    try watchListener()
  }

  private func watchListener() throws(SystemError) {
    guard let listener, listenerToken == nil else { return }
    listenerToken = try loop.watch(listener.socket.descriptor.number) { [unowned self] _ in acceptWaiting() }
  }
  private func unwatchListener() {
    if let listener, let listenerToken { loop.unwatch(listener.socket.descriptor.number, token: listenerToken) }
    listenerToken = nil
  }

  /// True if this VM's descriptors leave room for a connection. Those of an earlier front-end may wait to be closed, for as
  /// long as it likes: then this VM gets no other, and others do not notice.
  private var hasRoom: Bool {
    if backend.reaper.hasRoom { return true }
    if !hasSaidHeldUp {
      log(
        LogEvent(
          .warning, "no connection: descriptors that an earlier front-end sent are not closed yet; closing them blocks",
          ["vm": vm.name, "open": "\(backend.reaper.openCount)", "waiting": "\(backend.reaper.waitingCount)", "limit": "\(backend.reaper.limit)"]))
    }
    hasSaidHeldUp = true
    return false
  }

  private func acceptWaiting() {
    while let listener {
      guard hasRoom else {
        unwatchListener()
        loop.after(milliseconds: Self.retryInterval) { [weak self] in try? self?.watchListener() }
        return
      }
      do throws(SystemError) {
        guard var stream = try listener.socket.accept() else { return }
        if let reason = device.standing.reason {
          log(LogEvent(.warning, "front-end rejected: the VM cannot be served now", ["vm": vm.name, "reason": reason]))
          // What it has sent is closed with it.
          stream.entrust(to: backend.reaper)
          stream.shutDown()
          continue
        }
        guard !backend.isConnected else {
          log(LogEvent(.warning, "second front-end turned away: one at a time", ["vm": vm.name]))
          // What it has sent is closed with it.
          stream.entrust(to: backend.reaper)
          stream.shutDown()
          continue
        }
        try take(stream)
      } catch {
        log(LogEvent(.error, "connection not accepted", ["vm": vm.name, "reason": "\(error)"]))
        return
      }
    }
  }

  private func connect() {
    guard case .client(let path) = vm.endpoint, !isEnding, !backend.isConnected else { return }
    if let reason = device.standing.reason { return connectLater(path, reason) }
    guard hasRoom else {
      loop.after(milliseconds: Self.retryInterval) { [weak self] in self?.connect() }
      return
    }
    do throws(SystemError) { try take(try UnixStream(connectingTo: path)) } catch { connectLater(path, "\(error)") }
  }
  private func connectLater(_ path: String, _ reason: String) {
    if !hasComplained {
      log(LogEvent(.info, "waiting for the front-end", ["vm": vm.name, "socket": path, "reason": reason]))
      hasComplained = true
    }
    loop.after(milliseconds: Self.retryInterval) { [weak self] in self?.connect() }
  }

  private func take(_ stream: consuming UnixStream) throws(SystemError) {
    peer = try? stream.peer()
    backend.connect(stream, now: MonotonicClock.now(), offersRequests: !isInheritedPair)
    connections += 1
    (hasComplained, hasSaidHeldUp) = (false, false)
    try watch()
    lookAfter(connections)
  }

  /// Once a second while a connection lasts: what a front-end does to the files of its memory is not told by its socket.
  private func lookAfter(_ connection: UInt64) {
    loop.after(milliseconds: 1000) { [weak self] in
      guard let self, backend.isConnected, connections == connection else { return }
      backend.expire(now: MonotonicClock.now())
      follow()
      lookAfter(connection)
    }
  }

  // MARK: The connection

  private func watch() throws(SystemError) {
    guard let number = backend.descriptorNumber else { return }
    let token = try loop.watch(number) { [unowned self] in ready($0) }
    watched = (number, token, false)
    follow()
  }

  /// Leaves the socket alone until the front-end may be read again.
  private func pause(until time: UInt64, now: UInt64) {
    guard let watched else { return }
    loop.unwatch(watched.descriptor, token: watched.token)
    self.watched = nil
    messagePauses += 1
    let connection = connections
    loop.after(milliseconds: (time - now) / 1_000_000 + 1) { [weak self] in
      guard let self, backend.isConnected, connections == connection, self.watched == nil else { return }
      // One that cannot be waited for is of no use.
      do throws(SystemError) { try watch() } catch { backend.disconnect() }
    }
  }

  private func ready(_ readiness: Poller.Ready) {
    let now = MonotonicClock.now()
    // Readable first: a front-end that has gone may have left messages.
    if readiness.isWritable { backend.writable(now: now) }
    if readiness.isReadable || readiness.isClosed { backend.readable(now: now) }
    follow()
  }

  /// Waits for what the back-end waits for now.
  private func follow() {
    guard let watched, backend.isConnected else { return }
    if backend.isHeldUp {
      // What is ready in it stays so, and must not be told of again and again.
      loop.unwatch(watched.descriptor, token: watched.token)
      self.watched = nil
      let connection = connections
      loop.after(milliseconds: Self.heldUpInterval) { [weak self] in self?.resume(connection) }
      keepTime()
      return
    }
    let isWriting = backend.interest == .write
    let now = MonotonicClock.now()
    if !isWriting, let time = backend.pause(now: now) {
      pause(until: time, now: now)
      return keepTime()
    }
    if isWriting != watched.isWriting {
      loop.setWriting(isWriting, watched.descriptor, token: watched.token)
      self.watched?.isWriting = isWriting
    }
    keepTime()
  }

  /// Tries again to read from a connection that was held up.
  private func resume(_ connection: UInt64) {
    guard backend.isConnected, connections == connection, watched == nil else { return }
    backend.readable(now: MonotonicClock.now())
    guard backend.isConnected else { return }
    do throws(SystemError) { try watch() } catch {
      log(LogEvent(.error, "connection not watched", ["vm": vm.name, "reason": "\(error)"]))
      return backend.disconnect()
    }
    follow()
  }

  private func keepTime() {
    guard backend.deadline != deadline else { return }
    deadline = backend.deadline
    guard let deadline else { return }
    let now = MonotonicClock.now()
    loop.after(milliseconds: deadline > now ? (deadline - now) / 1_000_000 + 1 : 0) { [weak self] in
      // A later one has its own timer.
      guard let self, self.deadline == deadline else { return }
      self.deadline = nil
      backend.expire(now: MonotonicClock.now())
      follow()
    }
  }

  /// The connection is about to be closed, or has been: nothing is waited for any more.
  private func disconnected() {
    if let watched { loop.unwatch(watched.descriptor, token: watched.token) }
    (watched, deadline, peer) = (nil, nil, nil)
    guard !isEnding else { return }
    if case .client = vm.endpoint { loop.after(milliseconds: Self.retryInterval) { [weak self] in self?.connect() } }
    if case .descriptor = vm.endpoint, listener == nil {
      log(LogEvent(.warning, "the front-end's socket was inherited: it cannot come back", ["vm": vm.name]))
    }
  }

  /// Ends everything: when it returns, no memory of the guest is held.
  func close() {
    isEnding = true
    unwatchListener()
    listener = nil
    backend.disconnect()
  }

  /// Rings that the device refused start again, if the connection is still there.
  private func retryRings() {
    guard backend.isConnected else { return }
    backend.retryRings()
    follow()
  }

  /// A path of this VM has stopped by itself.
  ///
  /// - Parameter lane: whose it was; nil: whichever runs now. What came of one that is gone was dealt with when it went.
  func pathStopped(ring: Int, lane: UInt64? = nil, reason: String) {
    if let lane, !device.isCurrent(lane: lane, ring: ring) { return }
    lastViolation = "ring \(ring): \(reason)"
    backend.fault(ring: ring, RingRefusal(reason))
  }

  /// Ends the connection if the front-end has made a file of its memory shorter.
  func checkMemory() {
    guard backend.isConnected else { return }
    backend.expire(now: MonotonicClock.now())
    follow()
  }

  private func note(_ event: Event) {
    var level = LogEvent.Level.info
    switch event {
    case .connected: break
    case .disconnected(let reason):
      if reason.isViolation {
        lastViolation = "\(reason)"
        level = .warning
      }
      disconnected()
    case .memory(let regions, let bytes, _): memory = (regions, bytes)
    case .ringStarted(let ring, let size, let isPacked, _, let isEnabled):
      rings[ring] = RingView(state: isEnabled ? "running" : "disabled", format: isPacked ? "packed" : "split", size: size)
    case .ringStopped(let ring, _): rings[ring].state = "stopped"
    case .ringEnabled(let ring, let isEnabled):
      if rings[ring].state == "running" && !isEnabled { rings[ring].state = "disabled" }
      if rings[ring].state == "disabled" && isEnabled { rings[ring].state = "running" }
    case .ringRefused(let ring, let problem):
      rings[ring].state = "failed"
      rings[ring].reason = "\(problem)"
      device.abandon(ring: ring)
      level = .warning
    case .refused(let error):
      let fix = error.fix(for: vm)
      lastViolation = "\(error)\(fix)"
      return log(LogEvent(.warning, "\(event)\(fix)", ["vm": vm.name]))
    default: break
    }
    log(LogEvent(level, event, vm: vm.name, peer: peer))
  }

  private final class Listener {
    var socket: UnixListener
    init(_ socket: consuming UnixListener) { self.socket = socket }
  }
}

extension MessageError {
  /// The option that would let the message through, to stand behind the error's words; empty if there is none.
  func fix(for vm: Configuration.VM) -> String {
    guard case .noSuchRing(_, let index, _) = self else { return "" }
    let counts = Configuration.VM.queuePairCounts.filter { UInt32(2 * $0) > index }
    guard !counts.isEmpty else { return "; a VM has at most \(Configuration.VM.queuePairCounts.max() ?? 1)" }
    return "; " + counts.map { "queues=\($0)" }.joined(separator: " or ") + " on the VM allows it"
  }
}

extension LogEvent {
  /// A protocol event as a line of the log.
  fileprivate init(_ level: Level, _ event: Event, vm: String, peer: PeerCredentials?) {
    switch event {
    case .connected:
      self.init(.info, "front-end connected", ["vm": vm, "peer": peer.map { "\($0)" } ?? "unknown"])
    case .features(let features, let protocolFeatures):
      self.init(
        .info, "features negotiated",
        ["vm": vm, "features": features.text, "protocol": "\(protocolFeatures)"])
    default: self.init(level, "\(event)", ["vm": vm])
    }
  }
}
