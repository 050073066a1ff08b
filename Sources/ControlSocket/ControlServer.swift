public import Control
internal import Glibc
internal import Linux
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix

/// The control socket of a running back-end: HTTP/1.1 with JSON, one request a connection, on one thread of its own.
///
/// Who may ask is decided by the kernel's word for who connected (`Peer`), before a byte is read.
public final class ControlServer: Sendable {
  public struct Limits: Sendable {
    /// Of a request, header and body together.
    public var requestBytes = 64 << 10
    /// Of one that changes rules: a card has thousands.
    public var rulesBytes = 4 << 20
    /// Open at a time.
    public var connections = 64
    /// Of these, those that may not change anything: however many they open, whoever may finds a place.
    public var readers = 48
    /// From the connection to the whole request; for work other than an injection; to be read by the client.
    public var request = Duration.seconds(10)
    public var work = Duration.seconds(10)
    public var answer = Duration.seconds(10)
    public var linger = Duration.seconds(2)
    public init() {}
  }

  private let core: Core
  private let group: MultiThreadedEventLoopGroup
  private let file: Mutex<SocketFile?>

  /// Listens from here on.
  ///
  /// - Parameters:
  ///   - service: asked by a task for each request.
  ///   - log: a line for each request that changes something, and for each of these that was refused.
  public init(
    _ socket: Configuration.Socket, of service: any ServiceControl, limits: Limits = Limits(),
    log: @escaping @Sendable (LogEvent) -> Void
  ) throws(ControlSocketError) {
    let file = try SocketFile(socket)
    let core = Core(service, limits, log)
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    do {
      _ = try Self.bootstrap(core, readers: file.group, group).withBoundSocket(try file.handOver()).wait()
    } catch {
      try? group.syncShutdownGracefully()
      throw error as? ControlSocketError ?? .library("\(file.path): \(error)")
    }
    self.core = core
    self.group = group
    self.file = Mutex(consume file)
  }

  private static func bootstrap(_ core: Core, readers: UInt32, _ group: MultiThreadedEventLoopGroup) -> ServerBootstrap {
    let user = geteuid()
    return ServerBootstrap(group: group)
      .childChannelOption(.allowRemoteHalfClosure, value: true)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          let pipeline = channel.pipeline.syncOperations
          let peer = try pipeline.withUnsafeTransportIfAvailable(of: CInt.self) { UnixSocket.peer(of: $0) } ?? nil
          let access = peer?.access(service: user, group: readers) ?? .none
          let hasPlace = core.enter(access)
          if hasPlace { channel.closeFuture.whenComplete { _ in core.leave(access) } }
          let limit = ByteLimit(core.limits.requestBytes)
          try pipeline.addHandler(limit)
          var decoder = NIOHTTPDecoderLimitConfiguration()
          decoder.maxHeaderListSize = core.limits.requestBytes
          try pipeline.configureHTTPServerPipeline(
            withPipeliningAssistance: false, withErrorHandling: false, withEncoderConfiguration: .init(),
            withDecoderLimitConfiguration: decoder)
          try pipeline.addHandler(hasPlace ? Exchange(core, peer: peer, access: access, limit: limit) : Turnstile())
        }
      }
  }

  /// Ends every connection, injections with them, and takes the socket's file away. From any thread but its own, once
  /// or more often.
  public func stop() {
    guard core.stop() else { return }
    file.withLock { $0 = nil }
    // Closes every connection; an event loop of our own that still runs can always be ended.
    try? group.syncShutdownGracefully()
  }
  deinit { stop() }
}

extension ControlServer {
  /// What each connection needs to know of the server.
  final class Core: Sendable {
    let service: any ServiceControl
    let limits: Limits
    let log: @Sendable (LogEvent) -> Void
    private let state = Mutex(State())

    private struct State {
      var open = 0
      var readers = 0
      var isStopped = false
    }

    init(_ service: any ServiceControl, _ limits: Limits, _ log: @escaping @Sendable (LogEvent) -> Void) {
      (self.service, self.limits, self.log) = (service, limits, log)
    }

    /// Takes a place for a connection, or says that there is none.
    func enter(_ access: Peer.Access) -> Bool {
      state.withLock { state in
        guard state.open < limits.connections, access == .changes || state.readers < limits.readers else { return false }
        state.open += 1
        if access != .changes { state.readers += 1 }
        return true
      }
    }
    func leave(_ access: Peer.Access) {
      state.withLock { state in
        state.open -= 1
        if access != .changes { state.readers -= 1 }
      }
    }

    /// Hands an answer to the thread of its connection, unless that ends: an event loop that has ended takes nothing.
    func deliver(to loop: any EventLoop, _ body: @escaping @Sendable () -> Void) {
      state.withLock { if !$0.isStopped { loop.execute(body) } }
    }
    /// False if that was done before.
    func stop() -> Bool {
      state.withLock { state in
        defer { state.isStopped = true }
        return !state.isStopped
      }
    }
  }
}
