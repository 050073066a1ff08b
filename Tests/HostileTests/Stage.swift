@testable import Control
import Bus
import Datapath
import FlowSteering
import Foundation
import Linux
import Testing

/// A whole back-end against front-ends and guests that break its rules. What a test looks at in this process it tells from
/// what others do there by its name.
@Suite enum Hostile {}

/// A whole back-end in this process: the service, its control thread, its worker, a socket for each VM. VM 0 is the
/// victim, who behaves and must not notice; the others are attackers.
final class Stage: @unchecked Sendable {
  let service: Service
  private let folder, stateFolder: String
  private let vmCount: Int
  private let isOurs: Bool
  private let ended = DispatchSemaphore(value: 0)
  private var frameNumber = 0
  private var traceNumber = 0
  private(set) var victim: Guest!

  final class Journal: Sendable {
    let events = Mutex<[LogEvent]>([])
    let gone = Mutex<[String: Int]>([:])
  }
  private let record: Journal

  /// - Parameter adjust: changes the attackers' configuration.
  init(
    attackers: Int = 1, victimShape: Shape? = Shape(receiveSize: 128, memory: [512 << 10, 64 << 10]), socketFolder: String? = nil,
    adjust: (inout Configuration) -> Void = { _ in }, registers: @escaping (any RegisterFile) -> any RegisterFile = { $0 }
  ) throws {
    folder = socketFolder ?? NSTemporaryDirectory() + "hostile-\(UInt32.random(in: 0 ... .max))"
    stateFolder = NSTemporaryDirectory() + "hostile-state-\(UInt32.random(in: 0 ... .max))"
    for path in [folder, stateFolder] { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true) }
    vmCount = 1 + attackers
    isOurs = socketFolder == nil
    var configuration = Configuration()
    configuration.stateDirectory = stateFolder
    for n in 0..<vmCount {
      var vm = Configuration.VM(
        name: n == 0 ? "victim" : "attacker\(n)", endpoint: .server(Configuration.Socket(path: folder + "/\(n)")))
      vm.address = MACAddress(0x0200_0000_0A00 + UInt64(n))
      configuration.vms.append(vm)
    }
    adjust(&configuration)
    let record = Journal()
    self.record = record
    service = try Service(configuration, registers: registers) { event in
      record.events.withLock { $0.append(event) }
      if event.message.hasPrefix("front-end disconnected"), let vm = event["vm"] { record.gone.withLock { $0[vm, default: 0] += 1 } }
    }
    let (service, ended) = (service, ended)
    Foundation.Thread.detachNewThread {
      service.run()
      ended.signal()
    }
    if let victimShape {
      victim = try Guest(self, vm: 0, victimShape)
      try victim.start()
      victim.replenish()
    }
  }

  /// Stops the back-end and waits for its end.
  func end() {
    service.stop()
    ended.wait()
    try? FileManager.default.removeItem(atPath: stateFolder)
    if isOurs { try? FileManager.default.removeItem(atPath: folder) }
  }

  func socketPath(_ vm: Int) -> String { folder + "/\(vm)" }
  func name(_ vm: Int) -> String { vm == 0 ? "victim" : "attacker\(vm)" }
  func mac(_ vm: Int) -> [UInt8] { [2, 0, 0, 0, 0x0A, UInt8(vm)] }
  /// What its frames are marked with.
  func tag(_ vm: Int) -> UInt32 { 0xC3E1_F0A0 + UInt32(vm) }

  // MARK: What the back-end says

  func status() async -> StatusReport {
    do { return try await service.status() } catch { preconditionFailure("no status: \(error)") }
  }
  func status(_ vm: Int) async -> StatusReport.VM { await status().vms[name(vm)]! }
  func ring(_ vm: Int, _ number: Int) async -> StatusReport.Ring { await status(vm).rings[number] }

  /// Where the journal is now: what comes later is what follows.
  var mark: Int { record.events.withLock { $0.count } }
  func events(since mark: Int, vm: Int? = nil) -> [LogEvent] {
    record.events.withLock { events in
      events[mark...].filter { vm == nil || $0["vm"] == name(vm!) }
    }
  }
  /// Whether the journal has a line with these words.
  func hasSaid(_ words: String, since mark: Int, vm: Int) -> Bool {
    events(since: mark, vm: vm).contains { $0.message.contains(words) || $0.metadata.contains { $0.value.contains(words) } }
  }
  /// How often a VM's front-end has gone.
  func disconnections(_ vm: Int) -> Int { record.gone.withLock { $0[name(vm)] ?? 0 } }
  func text(since mark: Int, vm: Int) -> String {
    events(since: mark, vm: vm).map { "\($0.message) \($0.metadata.map { "\($0.key)=\($0.value)" }.joined(separator: " "))" }
      .joined(separator: "\n")
  }

  // MARK: Frames

  func frames(_ count: Int, to vm: Int, bytes size: ((Int) -> Int)? = nil) -> [[UInt8]] {
    (0..<count).map { n in
      frameNumber += 1
      return Frames.make(
        to: mac(vm), from: [2, 0, 0, 0, 0xEE, 1], tag: tag(vm), number: frameNumber,
        byteCount: size?(n) ?? [60, 61, 128, 512, 1000, 1514][frameNumber % 6])
    }
  }

  /// Puts frames on the wire, and returns when each has been settled.
  @discardableResult func inject(_ frames: [[UInt8]], speed: String = "top", loops: Int = 1) async throws -> InjectReport {
    traceNumber += 1
    let path = folder + "/\(traceNumber).pcap"
    try Frames.write(frames, to: path)
    defer { try? FileManager.default.removeItem(atPath: path) }
    return try await service.inject(InjectRequest(file: path, loops: loops, speed: speed))
  }

  // MARK: The victim

  /// The victim gets a batch of frames that come between others' frames: whole, in order, byte by byte.
  func victimGoesOn(_ label: String, between others: [[UInt8]] = []) async throws {
    let wanted = frames(8, to: 0)
    var mixed: [[UInt8]] = []
    for n in 0..<max(wanted.count, others.count) {
      if n < others.count { mixed.append(others[n]) }
      if n < wanted.count { mixed.append(wanted[n]) }
    }
    // In time: a wire at top speed would wait for those who take nothing.
    try await inject(mixed, speed: "pps=100000")
    let found = victim.harvest()
    #expect(found.elementsEqual(wanted), "\(label): the victim got \(found.count) frames of \(wanted.count), or other ones")
    victim.replenish()
    let strangers = (1..<vmCount).map(tag)
    let problems = victim.audit(strangers: strangers)
    #expect(problems.isEmpty, "\(label): \(problems)")
    let report = await status()
    for law in report.laws { #expect(law.holds, "\(label): \(law)") }
    #expect(report.vms["victim"]!.connection == "connected" && report.vms["victim"]!.rings.allSatisfy { $0.state == "running" },
      "\(label): \(report.vms["victim"]!.rings.map { "\($0.state) \($0.reason ?? "")" }) \(text(since: 0, vm: 0).suffix(1000))")
  }
}

/// Runs a test on a stage, and takes it down whatever happens.
func withStage(_ stage: Stage, _ body: (Stage) async throws -> Void) async throws {
  do { try await body(stage) } catch {
    stage.end()
    throw error
  }
  stage.end()
}
