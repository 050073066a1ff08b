internal import Linux

// What concerns the network device: its configuration, its MTU, and announcing it.
extension Backend {
  func setMTU(_ value: UInt64) throws(MessageError) {
    guard (68...65535).contains(value) else { throw .badMTU(value) }
    guard device.setMTU(Int(value)) else { throw .mtuRefused(Int(value)) }
    report(.mtu(Int(value)))
  }

  /// SEND_RARP: the first six bytes of its number are an address. More than a few in a second are done by not being
  /// passed on: a front-end must not make us flood the network.
  func announce(_ value: UInt64, _ now: UInt64) {
    var bytes: [UInt8] = []
    bytes.put(value)
    let second = now / 1_000_000_000
    if announcements.second != second { announcements = (second, 0) }
    announcements.count += 1
    if announcements.count <= limits.announcementsPerSecond { device.announce(Array(bytes.prefix(6))) }
  }

  // MARK: The configuration space. vhost-user, "Virtio device config space"

  func getConfig(_ access: ConfigAccess) throws(MessageError) -> [UInt8] {
    let bytes = try configBytes(access)
    var payload: [UInt8] = []
    payload.put(access.offset)
    payload.put(UInt32(bytes.count))
    payload.put(access.flags)
    return payload + bytes
  }

  /// A driver of virtio 1.0 and later writes nothing, and a migration may only bring what is so already.
  func setConfig(_ access: ConfigAccess) throws(MessageError) {
    guard try configBytes(access) == access.bytes else { throw .configIsReadOnly }
  }

  private func configBytes(_ access: ConfigAccess) throws(MessageError) -> [UInt8] {
    guard let config, !access.bytes.isEmpty, access.offset <= ConfigAccess.largest,
      access.bytes.count <= Int(ConfigAccess.largest - access.offset)
    else { throw .badConfigRange(offset: access.offset, byteCount: access.bytes.count) }
    return Array(config.bytes.dropFirst(Int(access.offset)).prefix(access.bytes.count))
  }

  // MARK: Asking the front-end. vhost-user, "Back-end communication"

  func setRequests(_ socket: consuming OwnedDescriptor, _ request: Request) throws(MessageError) {
    let kind: FileStatus.Kind
    do { kind = try socket.kind() } catch { throw .system(error) }
    // Not the end of a connection that goes through a listener: it may be the front-end's own end of this one, or of
    // another VM's. Held here it would keep that connection, and the VM's memory, after the front-end is dead.
    guard kind == .socket, socket.isUnixStream, socket.isUnnamedPair else {
      throw .wrongDescriptor(request, kind, needed: .socket)
    }
    // Held also if CONFIG was not negotiated and nothing will be said there: a front-end takes its end for a fault.
    requests = UnixStream(shared: socket)
    tellConfigChange()
  }

  /// Lets the socket for requests go when its other end is closed, or when something waits in it: no reply was asked for,
  /// and what waits may be a descriptor, which would be held with it: the front-end's own end of this connection, say.
  func checkRequests() {
    if requests?.hasInputOrEnd == true { requests = nil }
  }

  /// The configuration is another one from now on; a front-end that can be told is told. It is not asked to answer.
  public func setConfig(_ config: NetConfig) {
    precondition(offer.config != nil, "no configuration is offered on this socket")
    guard self.config != config else { return }
    self.config = config
    owesConfigChange = isConnected
    tellConfigChange()
  }

  /// CONFIG_CHANGE_MSG, once a ring runs: before, a back-end keeps silent. vhost-user, "Suspended device state".
  func tellConfigChange() {
    guard owesConfigChange, anyRuns, protocolFeatures.isSuperset(of: [.config, .backendReq]), requests != nil else { return }
    let message = MessageHeader.bytes(2, flags: 0, payload: [])
    do {
      // Full: the front-end does not listen now, and is told at the next occasion.
      guard let count = try requests?.send(message[...]) else { return }
      // A part of a message cannot be followed by another.
      if count < message.count { requests = nil }
    } catch { requests = nil }
    owesConfigChange = false
  }
}
