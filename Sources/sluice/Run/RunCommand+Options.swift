import Control
import Datapath
import VFIO

/// From what was typed, or a file, to a configuration. Every value is looked at here, so that each refusal names its
/// option; what is only wrong together is found by the configuration's own check, and given the option's name here.
extension RunCommand {
  /// What is to be run, and how it logs.
  func plan() throws(Failure) -> ConfigurationFile {
    var plan: ConfigurationFile
    if let path = file.config {
      let others = optionsBesideFile
      guard others.isEmpty else {
        throw .usage("--config", path, "everything but the log's options stands in the file; leave out \(others.joined(separator: ", "))")
      }
      plan = try ConfigurationFile.read(path)
    } else {
      plan = ConfigurationFile(configuration: try configuration())
    }
    try logging.apply(to: &plan.log)
    return plan
  }

  private var optionsBesideFile: [String] {
    let options: [(String, Bool)] = [
      ("--vm", !machines.vms.isEmpty), ("--nic", card.nic != nil), ("--vfio", card.vfio != nil), ("--protect", card.protect != nil), ("--wire", card.wire != nil), ("--host", card.host != nil), ("--mtu", card.mtu != nil),
      ("--ring-size", card.ringSize != nil), ("--moderation-us", card.moderationUs != nil),
      ("--control", running.control != nil), ("--state-dir", running.stateDir != nil),
      ("--workers", running.workers != nil), ("--cpus", running.cpus != nil), ("--spin-us", running.spinUs != nil),
      ("--rules", machines.rules != nil), ("--socket-path", program.socketPath != nil), ("--fd", program.fd != nil),
    ]
    return options.filter(\.1).map(\.0)
  }

  private func configuration() throws(Failure) -> Configuration {
    var configuration = Configuration()
    if let text = card.nic {
      guard configuration.nic.choose(text) else { throw .usage("--nic", text, "no such card; write \(Configuration.NIC.Kind.forms)") }
    }
    if let text = card.vfio, text != "auto" {
      guard let interface = VFIODevice.Interface(rawValue: text) else {
        throw .usage("--vfio", text, "no such interface; there are auto, \(VFIODevice.Interface.allCases.map(\.rawValue).joined(separator: ", "))")
      }
      configuration.nic.interface = interface
    }
    if let text = card.protect {
      guard let protection = Configuration.NIC.Protection(rawValue: text) else {
        throw .usage("--protect", text, "no such mode; modes are \(Configuration.NIC.Protection.allCases.map(\.rawValue).joined(separator: ", "))")
      }
      configuration.nic.protection = protection
    }
    if let text = card.mtu { configuration.nic.mtu = try number("--mtu", text) }
    if let text = card.ringSize { configuration.nic.ringSize = try number("--ring-size", text) }
    if let text = card.moderationUs { configuration.nic.moderationMicroseconds = try number("--moderation-us", text) }
    if let text = card.wire { configuration.wire = try WireOption.parse("--wire", text) }
    if let text = card.host { configuration.host = try WireOption.parse("--host", text) }
    if let path = running.control { configuration.control = .init(path: path) }
    configuration.stateDirectory = running.stateDir
    if let text = running.workers { configuration.workers.count = try number("--workers", text) }
    if let text = running.spinUs { configuration.workers.spinMicroseconds = try number("--spin-us", text) }
    if let text = running.cpus { configuration.workers.processors = try processors(text) }
    configuration.vms = try vms()
    if let file = machines.rules { configuration.rules = try RuleSetOptions.read(file) }
    if let problem = (configuration.problems() + configuration.problemsHere()).first { throw refusal(problem) }
    return configuration
  }

  private func vms() throws(Failure) -> [Configuration.VM] {
    let ways = [machines.vms.isEmpty ? nil : "--vm", program.socketPath.map { _ in "--socket-path" }, program.fd.map { _ in "--fd" }].compactMap { $0 }
    guard ways.count <= 1 else { throw .usage("\(ways.joined(separator: " and ")) exclude each other") }
    // The conventions know one device a process, without a name.
    if let path = program.socketPath { return [.init(name: "vm0", endpoint: .server(.init(path: path)))] }
    if let text = program.fd {
      let number = try number("--fd", text)
      guard (0...1_048_576).contains(number) else { throw .usage("--fd", text, "no descriptor has that number") }
      return [.init(name: "vm0", endpoint: .descriptor(Int32(number)))]
    }
    guard !machines.vms.isEmpty else { throw .usage("nothing to run: give --vm NAME,socket=PATH, or --config FILE") }
    var vms: [Configuration.VM] = []
    for text in machines.vms { vms.append(try BackendOption.parse(text)) }
    return vms
  }

  private func number(_ option: String, _ text: String) throws(Failure) -> Int {
    guard let count = Quantity.count(text), let number = Int(exactly: count) else { throw .usage(option, text, "must be a whole number") }
    return number
  }

  private func processors(_ text: String) throws(Failure) -> [Int] {
    guard let numbers = Quantity.counts(text) else { throw .usage("--cpus", text, "write numbers of processors, like 0,1") }
    return numbers
  }

  /// The option that a part of the configuration was made of.
  private func refusal(_ problem: ConfigurationError) -> Failure {
    let options = [
      "nic.mtu": ("--mtu", card.mtu), "nic.ring-size": ("--ring-size", card.ringSize),
      "nic.moderation-us": ("--moderation-us", card.moderationUs), "wire": ("--wire", card.wire),
      "host": ("--host", card.host),
      "control.socket": ("--control", running.control), "workers.count": ("--workers", running.workers),
      "workers.cpus": ("--cpus", running.cpus), "workers.spin-us": ("--spin-us", running.spinUs),
    ]
    if let (option, value) = options[problem.key] { return .usage(option, value ?? "", problem.reason) }
    if let path = program.socketPath, problem.key.hasPrefix("vms[0]") { return .usage("--socket-path", path, problem.reason) }
    for (index, text) in machines.vms.enumerated() where problem.key.hasPrefix("vms[\(index)].") {
      return .usage("--vm", text, "\(problem.key.drop { $0 != "." }.dropFirst()): \(problem.reason)")
    }
    return .usage(problem.key == "vms" ? "--vm: \(problem.reason)" : problem.description)
  }
}

extension RunCommand.LoggingOptions {
  /// What was typed goes before what stands in a file.
  func apply(to log: inout LogOptions) throws(Failure) {
    if let text = logLevel {
      guard let level = LogEvent.Level(rawValue: text) else {
        throw .usage("--log-level", text, "no such level; levels are \(LogEvent.Level.allCases.map(\.rawValue).joined(separator: ", "))")
      }
      log.level = level
    }
    if let text = logFormat {
      guard let format = LogOptions.Format(rawValue: text) else { throw .usage("--log-format", text, "no such format; formats are text, json") }
      log.format = format
    }
  }
}
