import Foundation

/// What a guest's ring and a front-end are to be like.
struct Shape {
  var isPacked = false
  var receiveSize = 32
  var sendSize = 16
  /// Of a receive buffer, in bytes: more than a frame and its header is lent to the card, less is copied into.
  var bufferBytes = 2048
  var features = FeatureBit.version1 | FeatureBit.mergeable | FeatureBit.indirect
  var memory = [384 << 10, 64 << 10]
  var isEnabled = true
  var protocolFeatures = Shape.protocolBits

  static let protocolBits =
    ProtocolBit.mq | ProtocolBit.logShmfd | ProtocolBit.rarp | ProtocolBit.replyAck | ProtocolBit.netMtu
    | ProtocolBit.backendReq | ProtocolBit.resetDevice | ProtocolBit.configureMemSlots
}

/// A guest and its front-end: drivers of a receive queue and of a transmit queue, honest if they are left alone.
final class Guest {
  let stage: Stage
  let vm: Int
  let shape: Shape
  let ram: GuestRAM
  let front: FrontEnd
  /// The how manieth front-end of its VM it is.
  let turn: Int
  let receive: Ring
  let send: Ring
  /// By the name that a receive buffer has out.
  private var posted: [UInt16: [Piece]] = [:]
  private var spare: [Piece] = []
  private let sendPlace: UInt64
  var frameCount = 0
  /// What the audit found while buffers came back.
  private(set) var damage: [String] = []

  init(_ stage: Stage, vm: Int, _ shape: Shape = Shape(), receive: ((GuestRAM) -> Ring)? = nil, send: ((GuestRAM) -> Ring)? = nil) throws {
    self.stage = stage
    self.vm = vm
    self.shape = shape
    ram = GuestRAM(byteCounts: shape.memory)
    self.receive = receive?(ram) ?? Ring.make(ram, number: 0, size: shape.receiveSize, isPacked: shape.isPacked)
    self.send = send?(ram) ?? Ring.make(ram, number: 1, size: shape.sendSize, isPacked: shape.isPacked)
    sendPlace = ram.take(2048 * shape.sendSize, alignment: 4096)
    turn = stage.disconnections(vm) + 1
    front = try FrontEnd(path: stage.socketPath(vm))
  }

  var mac: [UInt8] { stage.mac(vm) }
  var features: UInt64 {
    shape.features | FeatureBit.protocolFeatures | (shape.isPacked ? FeatureBit.packed : 0)
  }
  // MARK: The front-end

  /// Everything up to rings that run.
  func start() throws {
    try negotiate()
    try shareMemory()
    for ring in [receive, send] { try start(ring) }
  }

  func negotiate() throws {
    _ = try front.ask(Ask.getProtocolFeatures)
    front.message(Ask.setProtocolFeatures, littleEndian(shape.protocolFeatures))
    try front.must(Ask.setOwner)
    try front.must(Ask.setFeatures, littleEndian(features))
  }

  func shareMemory() throws {
    try front.must(Ask.setMemTable, littleEndian(UInt32(ram.regions.count), UInt32(0)) + ram.regions.flatMap(\.description), fds: ram.regions.map(\.file.number))
  }

  func addressMessage(_ ring: Ring, flags: UInt32 = 0) -> [UInt8] {
    littleEndian(
      UInt32(ring.number), flags, ram.frontend(ring.descriptors), ram.frontend(ring.device), ram.frontend(ring.driver),
      UInt64(0))
  }

  func start(_ ring: Ring, base: UInt32? = nil) throws {
    let number = UInt32(ring.number)
    try front.must(Ask.setVringCall, littleEndian(UInt64(number)), fds: [ring.call.number])
    try front.must(Ask.setVringErr, littleEndian(UInt64(number)), fds: [ring.fault.number])
    try front.must(Ask.setVringEnable, littleEndian(number, UInt32(shape.isEnabled ? 1 : 0)))
    try front.must(Ask.setVringNum, littleEndian(number, UInt32(ring.size)))
    try front.must(Ask.setVringBase, littleEndian(number, base ?? ring.startWord))
    try front.must(Ask.setVringAddr, addressMessage(ring))
    try front.must(Ask.setVringKick, littleEndian(UInt64(number)), fds: [ring.kick.number])
  }

  // MARK: Receiving

  /// Posts a buffer of these pieces.
  @discardableResult func post(_ pieces: [Piece]) -> UInt16 {
    let id = receive.offer(pieces)
    didPost(id, pieces)
    return id
  }
  @discardableResult func post(_ pieces: [Piece], table: UInt64, flags: UInt16 = 0) -> UInt16 {
    let id = receive.offer(pieces, table: table, flags: flags)
    didPost(id, pieces)
    return id
  }
  func didPost(_ id: UInt16, _ pieces: [Piece]) {
    posted[id] = pieces
    for piece in pieces { ram.open(piece.start, Int(piece.count)) }
  }

  /// Fills the receive queue with buffers of the usual size.
  func replenish(_ most: Int = .max, knocks: Bool = true) {
    var count = 0
    while receive.room > 0, count < most {
      post([spare.popLast() ?? Piece(ram.take(shape.bufferBytes), shape.bufferBytes)])
      count += 1
    }
    receive.show()
    if knocks { receive.knock() }
  }

  /// Buffers that came back: what was written into them, each checked to have left the rest alone.
  func collect() -> [[UInt8]] {
    receive.collect().map { used in
      guard let pieces = posted.removeValue(forKey: used.id) else { preconditionFailure("a buffer came back twice") }
      var data: [UInt8] = []
      var left = Int(used.count)
      for piece in pieces {
        let count = min(left, Int(piece.count))
        if count > 0 { data += ram.read(piece.start, count) }
        left -= count
        if !ram.shut(piece.start, Int(piece.count), written: count) {
          damage.append("\(ram.name): something behind the \(used.count) used bytes of buffer \(used.id) was written")
        }
      }
      if left > 0 { damage.append("\(ram.name): buffer \(used.id) came back with \(left) bytes more than it has") }
      if pieces.count == 1, Int(pieces[0].count) == shape.bufferBytes { spare.append(pieces[0]) }
      return data
    }
  }

  /// Whole frames that have come, their headers checked and taken off. virtio 1.3, 5.1.6.4.
  func harvest() -> [[UInt8]] {
    var frames: [[UInt8]] = []
    var rest = collect()[...]
    while let first = rest.popFirst() {
      if first.isEmpty { continue }
      guard first.count >= 12 else {
        damage.append("\(ram.name): a buffer with \(first.count) bytes, less than a header")
        continue
      }
      let count = Int(first[10]) | Int(first[11]) << 8
      if !first[0..<10].allSatisfy({ $0 == 0 }) { damage.append("\(ram.name): a header of \(first[0..<12])") }
      if count < 1 || count > rest.count + 1 {
        damage.append("\(ram.name): a header that says \(count) buffers; \(rest.count + 1) are there")
        continue
      }
      var frame = Array(first[12...])
      for _ in 1..<max(count, 1) { frame += rest.removeFirst() }
      frames.append(frame)
    }
    return frames
  }

  /// Puts back what was in the buffers that are posted. A card that was stopped may have written frames there that the driver never
  /// hears of; virtio leaves a buffer to the device until it is used.
  ///
  /// - Returns: whether each is as it was, but for one of `lost` behind its header.
  func clearPosted(of lost: [[UInt8]]) -> Bool {
    posted.values.joined().reduce(true) { isClean, piece in
      let lengths = [0] + lost.filter { ram.read(piece.start + 12, $0.count) == $0 }.map { 12 + $0.count }
      let isOne = lengths.contains { ram.isIntact(piece.start, Int(piece.count), behind: $0) }
      _ = ram.shut(piece.start, Int(piece.count), written: 0)
      ram.open(piece.start, Int(piece.count))
      return isClean && isOne
    }
  }

  // MARK: Sending

  /// A frame with a header of zeros before it, in one buffer.
  @discardableResult func transmit(_ frame: [UInt8], header: [UInt8] = [UInt8](repeating: 0, count: 12)) -> UInt16 {
    let place = sendPlace + 2048 * UInt64(send.outstanding % shape.sendSize)
    ram.put(header + frame, place)
    return send.offer([Piece(place, header.count + frame.count)])
  }

  // MARK: Afterwards

  /// All that is wrong with its memory: what was written that was nobody's to write, and bytes of others' frames.
  func audit(strangers: [UInt32]) -> [String] {
    var found = damage
    if let text = ram.firstDamage() { found.append(text) }
    for tag in strangers {
      if let place = ram.find(tag: tag) { found.append("\(ram.name): a frame of another guest's is at 0x\(String(place, radix: 16))") }
    }
    return found
  }
}
