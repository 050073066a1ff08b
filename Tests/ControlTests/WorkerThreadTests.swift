import Foundation
import Linux
import Testing
import VhostUser

@testable import Control

/// What the control thread does for a worker, on a back-end that does not run.
@Suite struct WorkerThreadTests {
  private func withService(_ body: (Service) throws -> Void) throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("worker-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    var configuration = Configuration()
    configuration.vms = [.init(name: "web", endpoint: .server(.init(path: folder + "/web")))]
    let service = try Service(configuration) { _ in }
    defer {
      service.stop()
      service.run()
    }
    try body(service)
  }

  @Test func `a kick that cannot be watched is an error, not a ring that never wakes`() throws {
    try withService { service in
      let worker = service.workers[0]
      let event = SharedDescriptor(try EventDescriptor().descriptor.duplicate())
      try worker.watch(event)
      // The kernel does not watch one twice, nor a plain file.
      #expect(throws: SystemError.self) { try worker.watch(event) }
      worker.unwatch(event)
      let file = SharedDescriptor(OwnedDescriptor(adopting: open("/etc/passwd", O_RDONLY)))
      #expect(throws: SystemError.self) { try worker.watch(file) }
      #expect(throws: Never.self) { try worker.watch(nil) }
    }
  }

  @Test func `detaching nothing is finished when all commands before it are`() throws {
    try withService { service in
      let worker = service.workers[0]
      let first = try #require(worker.send { _ in })
      let last = try #require(worker.detach([], [], isLast: true))
      #expect(worker.wait(for: last, until: MonotonicClock.now() + 60_000_000_000))
      #expect(first.isFinished)
    }
  }

  @Test func `the control thread answers a watchdog without waiting for workers`() async throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("worker-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    var configuration = Configuration()
    configuration.vms = [.init(name: "web", endpoint: .server(.init(path: folder + "/web")))]
    let service = try Service(configuration) { _ in }
    let ended = DispatchSemaphore(value: 0)
    Foundation.Thread.detachNewThread {
      service.run()
      ended.signal()
    }
    let gate = DispatchSemaphore(value: 0)
    await withCheckedContinuation { continuation in
      service.onControlThread { service in
        _ = service.workers[0].send { _ in gate.wait() }
        continuation.resume()
      }
    }
    #expect(await service.answers())
    // A report goes without what the worker would have to say.
    let report = try await service.status()
    #expect(!report.laws.contains { $0.name.contains("web's queues") })
    gate.signal()
    service.stop()
    ended.wait()
    #expect(await !service.answers())
  }
}
