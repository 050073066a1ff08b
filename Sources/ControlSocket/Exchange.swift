internal import Control
internal import NIOCore
internal import NIOHTTP1

/// One connection: one request, one answer, the end. Every state but the work of an injection has a time limit, so a
/// client that sends half a request, or reads half an answer, holds its place for seconds only.
///
/// All of it runs on the server's event loop.
final class Exchange: ChannelInboundHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart

  private enum State {
    case head
    case body(Verb)
    case working(Verb, Task<Void, Never>)
    case answering
    /// Answered before the request was whole: what still comes is thrown away, so that the client can read.
    case lingering
  }

  private let server: ControlServer.Core
  private let peer: Peer?
  private let access: Peer.Access
  private let byteLimit: ByteLimit
  private var state = State.head
  private var isHead = false
  private var isWhole = false
  private var bytes: [UInt8] = []
  private var timer: Scheduled<Void>?

  init(_ server: ControlServer.Core, peer: Peer?, access: Peer.Access, limit: ByteLimit) {
    (self.server, self.peer, self.access, byteLimit) = (server, peer, access, limit)
  }

  // MARK: The request

  func channelActive(context: ChannelHandlerContext) {
    limit(context, server.limits.request) { exchange, context in exchange.refuse(.tooSlow, context) }
    context.fireChannelActive()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch (unwrapInboundIn(data), state) {
    case (.head(let head), .head): begin(head, context)
    case (.body(let part), .body): bytes.append(contentsOf: part.readableBytesView)
    case (.end, .body(let verb)):
      isWhole = true
      work(verb, context)
    case (.end, _): isWhole = true
    default: break
    }
  }

  private func begin(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
    isHead = head.method == .HEAD
    do throws(Refusal) {
      let verb = try Verb.route(head.method, head.uri, for: access)
      let most = verb == .change ? server.limits.rulesBytes : server.limits.requestBytes
      if let length = head.headers.first(name: "content-length").flatMap({ Int($0) }), length > most { throw .tooLarge(most) }
      byteLimit.widen(by: most - server.limits.requestBytes)
      state = .body(verb)
      if head.headers[canonicalForm: "expect"].contains("100-continue") {
        context.writeAndFlush(wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: .continue))), promise: nil)
      }
    } catch {
      if head.method == .POST { audit(.warning, "a request to change something was refused", [("reason", error.code)]) }
      refuse(error, context)
    }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    switch error {
    case is ByteLimit.Exceeded: refuse(.tooLarge(server.limits.requestBytes), context)
    case HTTPParserError.headerOverflow: refuse(Refusal(.requestHeaderFieldsTooLarge, "too_large", "the header is too long"), context)
    case HTTPParserError.invalidEOFState: refuse(Refusal(.badRequest, "bad_request", "the request ended before it was whole"), context)
    case is HTTPParserError: refuse(Refusal(.badRequest, "bad_request", "this is not HTTP/1.1: \(error)"), context)
    default: context.close(promise: nil)
    }
  }

  // MARK: The work

  private func work(_ verb: Verb, _ context: ChannelHandlerContext) {
    if verb != .inject {
      limit(context, server.limits.work) { exchange, context in exchange.refuse(.noAnswer, context) }
    } else {
      timer?.cancel()
    }
    if verb.changes { audit(.notice, "a request to change something was taken", [("verb", "\(verb)")]) }
    let (server, body, loop) = (server, bytes, context.eventLoop)
    let bound = NIOLoopBound((self, context), eventLoop: loop)
    // No higher priority than the process has: a user may not ask for one.
    let task = Task(priority: .medium) {
      let answer = await verb.ask(server.service, body: body)
      server.deliver(to: loop) {
        let (exchange, context) = bound.value
        exchange.finish(verb, answer, context)
      }
    }
    state = .working(verb, task)
  }

  private func finish(_ verb: Verb, _ answer: Answer, _ context: ChannelHandlerContext) {
    if verb.changes { audit(.notice, "a request to change something has ended", [("verb", "\(verb)"), ("status", "\(answer.status.code)")]) }
    // Refused for its slowness by now, or the client is gone.
    guard case .working = state else { return }
    reply(answer, context)
  }

  private func audit(_ level: LogEvent.Level, _ message: String, _ more: [(String, String)]) {
    var event = LogEvent(level, message)
    let who = [("uid", peer.map { String($0.uid) } ?? "unknown"), ("pid", peer.map { String($0.pid) } ?? "unknown")]
    event.metadata = (who + more).map { LogEvent.Pair(key: $0.0, value: $0.1) }
    server.log(event)
  }

  // MARK: The answer

  private func refuse(_ refusal: Refusal, _ context: ChannelHandlerContext) {
    switch state {
    case .answering, .lingering: return
    case .working(_, let task): task.cancel()
    case .head, .body: break
    }
    reply(Answer(refusal), context)
  }

  private func reply(_ answer: Answer, _ context: ChannelHandlerContext) {
    state = .answering
    var headers: HTTPHeaders = [
      "Content-Type": answer.contentType, "Content-Length": String(answer.body.utf8.count), "Cache-Control": "no-store",
      "Connection": "close",
    ]
    if let allow = answer.allow { headers.add(name: "Allow", value: allow) }
    context.write(wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: answer.status, headers: headers))), promise: nil)
    if !isHead { context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: answer.body)))), promise: nil) }
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    limit(context, server.limits.answer) { _, context in context.close(promise: nil) }
    context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
      let (exchange, context) = bound.value
      exchange.end(context)
    }
  }

  private func end(_ context: ChannelHandlerContext) {
    if isWhole {
      context.close(promise: nil)
    } else {
      state = .lingering
      limit(context, server.limits.linger) { _, context in context.close(promise: nil) }
      context.close(mode: .output, promise: nil)
    }
  }

  // MARK: The end

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    guard case ChannelEvent.inputClosed = event else { return context.fireUserInboundEventTriggered(event) }
    switch state {
    // A client may close its half once it has asked; but who waits for an injection keeps it open, or has gone.
    case .working(let verb, _) where verb != .inject: break
    case .answering: break
    case .head, .body, .working, .lingering: context.close(promise: nil)
    }
  }

  func channelInactive(context: ChannelHandlerContext) {
    timer?.cancel()
    if case .working(_, let task) = state { task.cancel() }
    state = .answering
    context.fireChannelInactive()
  }

  /// Does `body` after so long, unless something else is limited before.
  private func limit(
    _ context: ChannelHandlerContext, _ time: Duration, _ body: @escaping @Sendable (Exchange, ChannelHandlerContext) -> Void
  ) {
    timer?.cancel()
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    timer = context.eventLoop.scheduleTask(in: TimeAmount(time)) {
      let (exchange, context) = bound.value
      body(exchange, context)
    }
  }
}

/// Tells a client for whom there is no place so, whatever it asks, and closes.
final class Turnstile: ChannelInboundHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart

  func channelActive(context: ChannelHandlerContext) {
    let answer = Answer(.crowd)
    let headers: HTTPHeaders = [
      "Content-Type": answer.contentType, "Content-Length": String(answer.body.utf8.count), "Connection": "close",
    ]
    context.write(wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: answer.status, headers: headers))), promise: nil)
    context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: answer.body)))), promise: nil)
    context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    context.close(promise: nil)
  }
}
