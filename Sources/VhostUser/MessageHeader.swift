/// What every message begins with. vhost-user, "Header".
public struct MessageHeader: Hashable, Sendable {
  /// Of a header, in bytes.
  static let byteCount = 12
  /// The longest payload that is read, in bytes. The longest that has a meaning here has 268.
  static let largestPayload: UInt32 = 4096

  public var request: UInt32
  /// Bits 0 and 1: the version. 2: a reply. 3: an answer is awaited.
  public var flags: UInt32
  /// Of the payload, in bytes.
  public var size: UInt32

  static let version: UInt32 = 1
  static let replyFlag: UInt32 = 1 << 2
  static let needReplyFlag: UInt32 = 1 << 3

  public var needsReply: Bool { flags & Self.needReplyFlag != 0 }

  /// Reads a front-end's header. What reads is what checks: there is no unchecked header.
  init(_ bytes: [UInt8]) throws(MessageError) {
    var reader = ByteReader(bytes)
    request = reader.next()
    flags = reader.next()
    size = reader.next()
    guard flags & 3 == Self.version else { throw .unsupportedVersion(flags & 3, request: request) }
    guard flags & Self.replyFlag == 0 else { throw .replyFromFrontend(request: request) }
    guard flags & ~0xF == 0 else { throw .reservedFlags(flags, request: request) }
    guard size <= Self.largestPayload else { throw .oversized(size, request: request, limit: Self.largestPayload) }
  }

  /// A message of ours.
  static func bytes(_ request: UInt32, flags: UInt32, payload: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    result.put(request)
    result.put(flags | version)
    result.put(UInt32(payload.count))
    return result + payload
  }
}
