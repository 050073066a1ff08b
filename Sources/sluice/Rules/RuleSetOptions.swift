import ArgumentParser
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

  /// - Parameter more: rules besides those in files, as they were typed.
  func rules(and more: [String] = []) throws(Failure) -> [Rule] {
    var rules: [Rule] = []
    for file in files { rules += try Self.read(file) }
    for text in more {
      do throws(RuleError) { rules.append(try Rule(parsing: text)) } catch { throw Failure(error, in: text) }
    }
    return rules
  }

  static func read(_ file: String) throws(Failure) -> [Rule] {
    let text: String
    do { text = try TextFile.read(file == "-" ? "/dev/stdin" : file, largest: 16 << 20) } catch { throw Failure(status: .unreadable, message: "\(file): \(error.reason)") }
    do throws(RuleError) { return try RuleFile.parse(text) } catch { throw Failure(error, in: file) }
  }

  /// The VMs that were given; else those that the rules name, with as many queues as they need.
  func receivers(_ rules: [Rule]) throws(Failure) -> [Receiver] {
    var receivers: [Receiver] = []
    for text in vms {
      let vm = try VMOption.parse(text)
      if receivers.contains(where: { $0.name == vm.name }) { throw .usage("--vm", text, "there is a VM \"\(vm.name)\" already") }
      receivers.append(Receiver(name: vm.name, queueCount: vm.queues, address: vm.address, vlan: vm.vlan))
    }
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
