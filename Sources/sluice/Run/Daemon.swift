import Control
import ControlSocket
import Glibc
import Linux

/// A back-end from its start to its end: its log, its signals, its control socket, and who started it.
struct Daemon {
  let configuration: Configuration
  let log: ServiceLog
  /// Reads the configuration file again; nil where there is none.
  let reread: (@Sendable () throws(Failure) -> ConfigurationFile)?

  typealias Maker = (Configuration, @escaping @Sendable (LogEvent) -> Void) throws(Failure) -> any BackendService

  /// Returns when it has ended because it was asked to.
  func run(_ make: Maker) throws(Failure) {
    defer { log.close() }
    LargeBlocks.returnWhenFreed()
    // Who goes away while we write to him is told by the write.
    signal(SIGPIPE, SIG_IGN)
    let manager = ServiceManager(pid: getpid()) { StandardStream.variable($0) }
    let start = Handover()
    // Before any other thread: they must not be given the signals.
    let signals = try Signals(hangUp: { start.service.map { reload($0, manager) } }, stop: {
      log.log(LogEvent(.notice, "asked to end"))
      start.stop(manager)
    })
    let service = try make(configuration) { [log] in log.log($0) }
    let server = try serve(service)
    defer { server?.stop() }
    let watchdog = watch(service, manager)
    defer { watchdog?.cancel() }
    log.log(LogEvent(.notice, "ready", ["version": Sluice.version, "pid": String(getpid()), "vms": String(configuration.vms.count)]))
    manager?.send(.ready)
    start.set(service)
    service.run()
    log.log(LogEvent(.notice, "stopped"))
    if signals.received == nil { throw Failure(status: .machine, message: "the back-end has ended by itself; its log says why") }
  }

  private func serve(_ service: any BackendService) throws(Failure) -> ControlServer? {
    guard let socket = configuration.control else { return nil }
    do {
      return try ControlServer(socket, of: service) { [log] in log.log($0) }
    } catch {
      service.stop()
      throw Failure(status: .machine, message: "the control socket: \(error)")
    }
  }

  /// The most time between two signs of life, in microseconds: a third of what the service manager allows, or less.
  private static let longestInterval: UInt64 = 500_000

  /// A sign of life is one of the control thread's: it answers before each is sent.
  private func watch(_ service: any BackendService, _ manager: ServiceManager?) -> Task<Void, Never>? {
    guard let manager, let microseconds = manager.watchdogMicroseconds else { return nil }
    return Task(priority: .medium) {
      while !Task.isCancelled {
        if await service.answers() { manager.send(.alive) }
        try? await Task.sleep(for: .microseconds(max(1, min(microseconds / 3, Self.longestInterval))))
      }
    }
  }

  private func reload(_ service: any BackendService, _ manager: ServiceManager?) {
    guard let reread else {
      return log.log(LogEvent(.warning, "SIGHUP: started with options, there is no file to read again"))
    }
    manager?.send(.reloading(microseconds: MonotonicClock.now() / 1000))
    defer { manager?.send(.ready) }
    let file: ConfigurationFile
    do { file = try reread() } catch {
      for line in error.message.split(separator: "\n") { log.log(LogEvent(.error, "the configuration stays as it is", ["error": String(line)])) }
      return
    }
    log.set(level: file.log.level)
    let changes = service.reload(file.configuration)
    log.log(LogEvent(.notice, "the configuration was read again", ["changes": String(changes.count)]))
    for change in changes { log.log(LogEvent(.notice, "of the configuration", ["change": change])) }
  }
}

/// Where the thread for signals finds the service once there is one.
private final class Handover: Sendable {
  private struct State {
    var service: (any BackendService)?
    var isStopped = false
  }
  private let state = Mutex(State())

  var service: (any BackendService)? { state.withLock { $0.service } }

  /// A signal that came before stops it now.
  func set(_ service: any BackendService) {
    let isStopped = state.withLock { state in
      state.service = service
      return state.isStopped
    }
    if isStopped { service.stop() }
  }

  func stop(_ manager: ServiceManager?) {
    manager?.send(.stopping)
    let service = state.withLock { state in
      state.isStopped = true
      return state.service
    }
    service?.stop()
  }
}
