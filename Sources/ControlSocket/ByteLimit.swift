internal import NIOCore

/// Stands before the HTTP decoder: what a client sends beyond the limit never reaches it, nor memory.
final class ByteLimit: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  struct Exceeded: Error {}

  private var rest: Int

  init(_ byteCount: Int) { rest = byteCount }

  /// Lets so many more come.
  func widen(by byteCount: Int) { rest += byteCount }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    guard rest >= 0 else { return }
    rest -= unwrapInboundIn(data).readableBytes
    if rest >= 0 { context.fireChannelRead(data) } else { context.fireErrorCaught(Exceeded()) }
  }
}
