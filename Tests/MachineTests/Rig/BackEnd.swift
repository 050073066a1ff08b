// A vhost-user back-end as the tests see it. They judge `sluice run`; the same tests run against DPDK's.

import Foundation

/// One socket of a back-end, and the VM that is to be behind it.
struct Port: Sendable {
  var name: String
  var socket: String
  var mac: String
  var link = MachineOptions.Link.connects
  var pairs = 1
  var isPacked = false
}

protocol BackEnd: AnyObject {
  var process: Subprocess { get }
  /// Starts it, the first time or again after `crash`; returns when its sockets listen.
  func start() throws
  /// Begins to put a trace's frames on the wire, no faster than guests take them.
  func inject(_ trace: Trace, laps: Int) throws -> any Injection
  /// How many frames it has given to the guest behind the socket of that name; nil where it does not say.
  func delivered(to name: String) throws -> Int?
  /// kill -9.
  func crash()
  /// Waits until nothing is under way; throws where the back-end's sums do not add up then.
  func settle() throws
  /// Tells it to end, and waits.
  func stop() throws
}

/// Frames on their way.
protocol Injection {
  /// Waits until what became of each frame is known.
  func end(within seconds: Int) throws -> Settled
  /// Ends it early.
  func cancel()
}

/// What became of the frames of a trace.
struct Settled: Equatable {
  var delivered: Int
  /// By reason.
  var dropped: [String: Int] = [:]
}

extension Injection {
  func end() throws -> Settled { try end(within: Deadline.patience) }
}

/// A test's folder, and what failed where.
final class Stage {
  let folder: String
  private var count = 0

  init() throws {
    folder = FileManager.default.temporaryDirectory.path + "/sluice-rig-" + UUID().uuidString.prefix(8)
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
  }

  /// A folder for one part of the test.
  func place(_ name: String) throws -> String {
    count += 1
    let place = "\(folder)/\(name)\(count)"
    try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
    return place
  }

  func socket(_ name: String = "vm") -> String { "\(folder)/\(name).sock" }
  func port(_ name: String = "vm", mac: String = "52:54:00:12:34:56") -> Port { Port(name: name, socket: socket(name), mac: mac) }

  /// The back-end under test, started. With `network`, its wire is a TAP device `tap0` there.
  func backEnd(_ ports: [Port], network: Network? = nil) throws -> any BackEnd {
    let backEnd: any BackEnd = Rig.backEnd == "testpmd"
      ? try TestpmdBackEnd(ports, network: network, folder: place("testpmd"))
      : try SluiceBackEnd(ports, network: network, folder: place("sluice"))
    try backEnd.start()
    return backEnd
  }

  /// A machine, started.
  func machine(_ options: MachineOptions) throws -> Machine { try Machine(options, folder: place("machine")) }
  /// The machine for `port`, started, with whatever is set on top.
  func machine(for port: Port, _ change: (inout MachineOptions) -> Void = { _ in }) throws -> Machine {
    var options = MachineOptions(socket: port.socket)
    options.mac = port.mac
    options.link = port.link
    options.pairs = port.pairs
    options.isPacked = port.isPacked
    change(&options)
    return try machine(options)
  }

  /// The end of every log, for a failure; an injection's own failure has its words.
  fileprivate func logs() -> String {
    let names = FileManager.default.enumerator(atPath: folder)?.compactMap { $0 as? String } ?? []
    return names.filter { $0.hasSuffix(".log") && !$0.hasSuffix("inject.log") }.sorted().map { name in
      let text = (try? String(decoding: Data(contentsOf: URL(fileURLWithPath: folder + "/" + name)), as: UTF8.self)) ?? ""
      return "--- \(name)\n" + text.split(separator: "\n").suffix(25).joined(separator: "\n")
    }.joined(separator: "\n")
  }
}

/// Calls `body` with a stage. What it throws is thrown on with the ends of all logs; the folder is gone afterwards.
func withStage<Result>(_ body: (Stage) throws -> Result) throws -> Result {
  let stage = try Stage()
  defer { if !Rig.keepsFolders { try? FileManager.default.removeItem(atPath: stage.folder) } }
  do { return try body(stage) } catch { throw RigError("\(error)\n\(stage.logs())") }
}
