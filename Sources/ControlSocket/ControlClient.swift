public import FlowSteering
internal import FoundationEssentials
internal import Glibc
internal import Linux
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix

/// Asks a running back-end through its control socket. A connection for each request, as the server wants it.
public final class ControlClient: Sendable {
  public let path: String
  private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)

  public init(path: String) { self.path = path }

  /// Waits for answers that are still to come no longer.
  public func close() { try? group.syncShutdownGracefully() }

  public enum Method: String, Sendable { case get = "GET", post = "POST" }

  /// An answer that is on its way.
  public final class Pending: Sendable {
    private let future: EventLoopFuture<Response>
    private let channel: EventLoopFuture<any Channel>
    private let path: String

    fileprivate init(_ future: EventLoopFuture<Response>, _ channel: EventLoopFuture<any Channel>, path: String) {
      (self.future, self.channel, self.path) = (future, channel, path)
    }

    /// Calls `body` on a thread of the client's when the answer is there, or will never be.
    public func whenDone(_ body: @escaping @Sendable () -> Void) { future.whenComplete { _ in body() } }
    /// Goes away: what was asked for ends, where it has not.
    public func cancel() { channel.whenSuccess { $0.close(promise: nil) } }

    /// The body of a good answer. Waits for it; not to be called from `whenDone`.
    public func wait() throws(ControlClientError) -> String {
      let response: Response
      do { response = try future.wait() } catch { throw ControlClientError(error, path: path) }
      if response.status == .ok { return response.body }
      if let rule = Response.problem(response.body)?.rule { throw .rule(rule) }
      throw .refused(status: Int(response.status.code), message: Response.message(response.body))
    }
  }

  /// - Parameter seconds: how long an answer may take; nil: for ever.
  public func start(_ method: Method, _ target: String, body: String = "", seconds: Int64? = 15) -> Pending {
    let answer = group.next().makePromise(of: Response.self)
    guard path.utf8.count < 108, !path.isEmpty else {
      answer.fail(ControlClientError.badPath(path))
      return Pending(answer.futureResult, group.next().makeFailedFuture(ControlClientError.badPath(path)), path: path)
    }
    let request = ClientExchange.Request(method: HTTPMethod(rawValue: method.rawValue), target: target, body: body, seconds: seconds)
    let channel = ClientBootstrap(group: group)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHTTPClientHandlers()
          try channel.pipeline.syncOperations.addHandler(ClientExchange(request, answer))
        }
      }
      .connect(unixDomainSocketPath: path)
    channel.whenFailure { answer.fail($0) }
    return Pending(answer.futureResult, channel, path: path)
  }

  public func get(_ target: String) throws(ControlClientError) -> String { try start(.get, target).wait() }

  struct Response: Sendable {
    let status: HTTPResponseStatus
    let body: String

    /// What an error's JSON says, or else the body.
    static func message(_ body: String) -> String { problem(body)?.message ?? body }

    struct Problem: Decodable {
      let message: String
      let rule: RuleError?
    }
    static func problem(_ body: String) -> Problem? {
      struct Body: Decodable { let error: Problem }
      return (try? JSONDecoder().decode(Body.self, from: Data(body.utf8)))?.error
    }
  }
}

/// Why there is no good answer.
public enum ControlClientError: Error, Hashable, Sendable, CustomStringConvertible {
  case badPath(String)
  case noSocket(path: String)
  /// The file is there; who made it is gone.
  case nobodyListens(path: String)
  case notPermitted(path: String)
  case noAnswer(path: String)
  /// The back-end answered with this status.
  case refused(status: Int, message: String)
  /// The card cannot do what the rules would say.
  case rule(RuleError)
  case broken(path: String, String)

  public var description: String {
    switch self {
    case .badPath(let path): "\(path.isEmpty ? "''" : path): a socket's path has 1 to 107 bytes"
    case .noSocket(let path): "\(path): no such socket; is 'sluice run' running, with this --control?"
    case .nobodyListens(let path): "\(path): nobody listens there; has 'sluice run' ended?"
    case .notPermitted(let path): "\(path): permission denied; ask as root, as the back-end's user, or as a member of the socket's group"
    case .noAnswer(let path): "\(path): no answer in time"
    case .refused(_, let message): message
    case .rule(let error): error.description
    case .broken(let path, let text): "\(path): \(text)"
    }
  }

  fileprivate init(_ error: any Error, path: String) {
    switch error {
    case let error as ControlClientError: self = error
    case let error as IOError:
      switch error.errnoCode {
      case ENOENT, ENOTDIR: self = .noSocket(path: path)
      case ECONNREFUSED: self = .nobodyListens(path: path)
      case EACCES, EPERM: self = .notPermitted(path: path)
      case let code: self = .broken(path: path, SystemError.text(code))
      }
    case is ClientExchange.NoAnswer: self = .noAnswer(path: path)
    case ChannelError.connectTimeout: self = .noAnswer(path: path)
    case is ClientExchange.Cut, is ChannelError, is HTTPParserError: self = .broken(path: path, "the connection ended before its answer")
    default: self = .broken(path: path, "\(error)")
    }
  }
}

/// The client's side of one connection.
final class ClientExchange: ChannelInboundHandler {
  typealias InboundIn = HTTPClientResponsePart
  typealias OutboundOut = HTTPClientRequestPart

  struct Request: Sendable {
    let method: HTTPMethod
    let target: String
    let body: String
    let seconds: Int64?
  }
  struct NoAnswer: Error {}
  struct Cut: Error {}
  /// The most that is taken of an answer, in bytes.
  static let largest = 64 << 20

  private let request: Request
  private let answer: EventLoopPromise<ControlClient.Response>
  private var status: HTTPResponseStatus?
  private var bytes: [UInt8] = []
  private var timer: Scheduled<Void>?

  init(_ request: Request, _ answer: EventLoopPromise<ControlClient.Response>) {
    (self.request, self.answer) = (request, answer)
  }

  func channelActive(context: ChannelHandlerContext) {
    var headers: HTTPHeaders = ["Host": "localhost", "Connection": "close"]
    if request.method == .POST {
      headers.add(name: "Content-Type", value: "application/json")
      headers.add(name: "Content-Length", value: String(request.body.utf8.count))
    }
    let head = HTTPRequestHead(version: .http1_1, method: request.method, uri: request.target, headers: headers)
    context.write(wrapOutboundOut(.head(head)), promise: nil)
    if request.method == .POST { context.write(wrapOutboundOut(.body(.byteBuffer(ByteBuffer(string: request.body)))), promise: nil) }
    context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    if let seconds = request.seconds {
      let answer = answer
      let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
      timer = context.eventLoop.scheduleTask(in: .seconds(seconds)) {
        answer.fail(NoAnswer())
        bound.value.close(promise: nil)
      }
    }
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head(let head): status = head.status
    case .body(let part):
      bytes.append(contentsOf: part.readableBytesView)
      if bytes.count > Self.largest { context.close(promise: nil) }
    case .end:
      if let status { answer.succeed(.init(status: status, body: String(decoding: bytes, as: UTF8.self))) }
      context.close(promise: nil)
    }
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    answer.fail(error)
    context.close(promise: nil)
  }

  func channelInactive(context: ChannelHandlerContext) {
    timer?.cancel()
    answer.fail(Cut())
  }
}
