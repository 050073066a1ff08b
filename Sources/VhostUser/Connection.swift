internal import Linux

/// One front-end's socket, as a stream of whole messages. Never blocks: what is not there yet is waited for by whoever
/// owns the poller. vhost-user, "Communication".
///
/// While a reply waits for room in the socket nothing more is read: the front-end that does not read its replies
/// is not served, and what we hold for it is bounded.
struct Connection: ~Copyable {
  private let stream: UnixStream
  private let limits: Limits
  /// Of the message that is being received.
  private var headerBytes: [UInt8] = []
  private var header: MessageHeader?
  private var payload: [UInt8] = []
  private var descriptors = ReceivedDescriptors()
  /// Of the reply that waits.
  private var unsent: ArraySlice<UInt8> = []
  /// Goes with its first byte.
  private var unsentDescriptor: SharedDescriptor?
  /// Nothing is read: descriptors that came before are not closed, and there may be no more of them.
  private(set) var isHeldUp = false
  /// When its patience with the front-end ends; nil: never.
  private(set) var deadline: UInt64?

  init(_ stream: consuming UnixStream, _ limits: Limits, now: UInt64) {
    self.stream = stream
    self.limits = limits
    deadline = now &+ limits.firstMessage
  }

  var number: CInt { stream.descriptor.number }
  var hasUnsentReply: Bool { !unsent.isEmpty }
  /// Whether a message has begun and not ended.
  var isInsideMessage: Bool { !headerBytes.isEmpty }

  enum Step: ~Copyable {
    case message(MessageHeader, [UInt8], ReceivedDescriptors)
    /// Nothing more is there, or nothing more is read now.
    case wait
    case end
  }

  /// The next message, if all of it is there.
  mutating func next(now: UInt64) throws(MessageError) -> Step {
    while unsent.isEmpty {
      let missing = header.map { Int($0.size) - payload.count } ?? (MessageHeader.byteCount - headerBytes.count)
      if missing == 0 { return takeMessage() }
      guard hasRoom(now: now) else { return .wait }
      let reception: UnixStream.Reception
      do { reception = try stream.receive(atMost: missing) } catch { throw .system(error) }
      switch consume reception {
      case .nothing: return .wait
      case .end: return .end
      case .foreignControlData: throw .foreignControlData
      case .bytes(let bytes, let received): try add(bytes, received, now)
      }
    }
    return .wait
  }

  /// Whether any message may come: each can bring as many descriptors as the kernel passes.
  private mutating func hasRoom(now: UInt64) -> Bool {
    let hadRoom = !isHeldUp
    isHeldUp = stream.descriptor.reaper?.hasRoom == false
    if isHeldUp && deadline == nil { deadline = now &+ limits.closing }
    if !isHeldUp && !hadRoom && headerBytes.isEmpty { deadline = nil }
    return !isHeldUp
  }

  /// Lets the front-end see the end now: closing the socket is the reaper's, and may take long.
  func shutDown() { stream.shutDown() }

  private mutating func add(_ bytes: [UInt8], _ received: consuming ReceivedDescriptors, _ now: UInt64) throws(MessageError) {
    if headerBytes.isEmpty {
      descriptors = received
      deadline = now &+ limits.message
    } else {
      guard received.isEmpty else { throw .strayDescriptors(count: received.count) }
    }
    if header != nil {
      payload += bytes
      return
    }
    headerBytes += bytes
    if headerBytes.count == MessageHeader.byteCount { header = try MessageHeader(headerBytes) }
  }

  private mutating func takeMessage() -> Step {
    var taken = ReceivedDescriptors()
    swap(&taken, &descriptors)
    let step = Step.message(header!, payload, taken)
    (header, headerBytes, payload, deadline) = (nil, [], [], nil)
    return step
  }

  /// Sends a message, or as much of it as the socket takes.
  ///
  /// - Parameter descriptor: goes with it.
  mutating func send(_ bytes: [UInt8], _ descriptor: SharedDescriptor? = nil, now: UInt64) throws(MessageError) {
    // One reply at a time: while one waits, nothing is read.
    unsent += bytes
    unsentDescriptor = descriptor
    try flush(now: now)
  }

  /// Sends more of a reply that waits.
  mutating func flush(now: UInt64) throws(MessageError) {
    while !unsent.isEmpty {
      do {
        let descriptors = unsentDescriptor.map { [$0.descriptor.number] } ?? []
        guard let count = try stream.send(unsent, descriptors: descriptors) else { break }
        unsent = unsent.dropFirst(count)
        unsentDescriptor = nil
      } catch { throw .system(error) }
    }
    if unsent.isEmpty { deadline = nil } else if deadline == nil { deadline = now &+ limits.reply }
  }
}
