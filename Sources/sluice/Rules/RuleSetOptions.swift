import ArgumentParser
import FlowDialects
import FlowSteering
import FlowTables
import Replay

/// Rules, the VMs that they name, and the card that is to do them.
struct RuleSetOptions: ParsableArguments {
  @Option(name: .customLong("rules"), help: .init("A file of rules, one a line; - is standard input.", valueName: "file"), completion: .file())
  var files: [String] = []

  @Option(
    name: .customLong("vm"),
    help: .init("A VM: NAME[,mac=ADDRESS][,vlan=N][,queues=N]. Without any: those that the rules name.", valueName: "vm"))
  var vms: [String] = []

  @Option(help: .init("The card: 82599, 82576, i350 or ideal, which can do everything.", valueName: "card"), completion: .list(CardProfile.all.map(\.name)))
  var profile = CardProfile.intel82599.name

  func card() throws(Failure) -> CardProfile {
    guard let card = CardProfile.named(profile) else {
      throw .usage("--profile", profile, "no such card; there are \(CardProfile.all.map(\.name).joined(separator: ", "))")
    }
    return card
  }

  @Option(
    help: .init("How rules are written: native, ethtool, testpmd or tc. Without it, how a line starts tells.", valueName: "dialect"),
    completion: .list(Dialect.allCases.map(\.rawValue)))
  var format: String?

  /// - Parameter more: rules besides those in files, as they were typed.
  func rules(and more: [String] = []) throws(Failure) -> [Rule] {
    let context = DialectContext(vms: try given().map(\.name))
    let dialect = try format.map { name throws(Failure) in try Self.dialect(name) }
    var rules: [Rule] = []
    for file in files { rules += try Self.read(file, in: context, as: dialect) }
    for text in more { rules += try Self.rules(text, "'\(printable(text))'", in: context, as: dialect) }
    return rules
  }

  static func dialect(_ name: String) throws(Failure) -> Dialect {
    guard let dialect = Dialect(rawValue: name) else {
      throw .usage("--format", name, "no such dialect; there are \(Dialect.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    return dialect
  }

  static func text(of file: String) throws(Failure) -> String {
    do { return try TextFile.read(file == "-" ? "/dev/stdin" : file, largest: 16 << 20) } catch { throw Failure(status: .unreadable, message: "\(file): \(error.reason)") }
  }

  static func read(_ file: String, in context: DialectContext = DialectContext(), as dialect: Dialect? = nil) throws(Failure) -> [Rule] {
    try rules(try text(of: file), file, in: context, as: dialect)
  }

  /// The rules that there are when each command of a text has been carried out.
  private static func rules(_ text: String, _ place: String, in context: DialectContext, as dialect: Dialect?) throws(Failure) -> [Rule] {
    do throws(RuleError) {
      var rules: [Rule] = []
      for (line, command) in try RuleCommand.commands(in: text, context: context, as: dialect).map({ ($0.line, $0.command) }) {
        switch command {
        case .add(let rule): rules.append(rule)
        case .delete(let id):
          guard let index = rules.firstIndex(where: { $0.id == id }) else { throw RuleError(.noSuchRule, "there is no rule \(id) up to here", line: line) }
          rules.remove(at: index)
        case .flush(let vm): rules.removeAll { vm.map($0.vms.contains) ?? true }
        case .validate: throw RuleError(.actionUnsupported, "\"validate\" adds nothing", fit: "leave the line out, or write sluice rules validate", line: line)
        }
      }
      return rules
    } catch { throw Failure(error, in: place) }
  }

  private func given() throws(Failure) -> [Receiver] {
    var receivers: [Receiver] = []
    for text in vms {
      let vm = try VMOption.parse(text)
      if receivers.contains(where: { $0.name == vm.name }) { throw .usage("--vm", text, "there is a VM \"\(vm.name)\" already") }
      var receiver = Receiver(name: vm.name, queueCount: vm.queues, address: vm.address, vlan: vm.vlan)
      // As a back-end has it, unless it is given spoof=allow.
      receiver.checksSource = true
      receivers.append(receiver)
    }
    return receivers
  }

  /// The VMs that were given; else those that the rules name, with as many queues as they need.
  func receivers(_ rules: [Rule]) throws(Failure) -> [Receiver] {
    var receivers = try given()
    if !receivers.isEmpty { return receivers }
    for rule in rules {
      for name in rule.vms where !receivers.contains(where: { $0.name == name }) { receivers.append(Receiver(name: name)) }
    }
    for rule in rules {
      func need(_ queue: Int, _ name: String?) {
        for index in receivers.indices where name == nil || receivers[index].name == name {
          receivers[index].queueCount = max(receivers[index].queueCount, queue >= 2 ? 4 : queue + 1)
        }
      }
      switch rule.decision {
      case .deliver(let targets): for target in targets { need(target.queue ?? 0, target.vm) }
      case .queue(let queue): need(queue, rule.owner)
      case .drop, .host: break
      }
    }
    if receivers.isEmpty { throw .usage("no VM: no --vm was given, and no rule names one") }
    return receivers
  }

  func program(_ rules: [Rule]) throws(Failure) -> CardProgram {
    let (receivers, card) = (try receivers(rules), try card())
    do throws(RuleError) { return try CardProgram(Steering(rules, for: receivers), for: card) } catch { throw Failure(error) }
  }
}
