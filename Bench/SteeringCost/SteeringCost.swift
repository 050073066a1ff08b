import ArgumentParser
import FlowSteering
import FlowTables

/// What rules cost before a frame comes: compiling them, adding one to many, and asking them.
///
/// Every figure is beside a yardstick of the same run: looking each rule's text up in a dictionary once.
@main
struct SteeringCost: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Measure the compiling and asking of rules.")

  @Option(help: "Exact IPv4 5-tuple rules.") var rules = 8000
  @Option(help: "Times each is done; the least counts.") var rounds = 10

  func run() throws {
    let receivers = (0..<8).map { Receiver(name: "vm\($0)", address: MACAddress.local($0 + 1)) }
    let rules = try (0..<rules).map { try Rule(parsing: Self.text($0)) }
    let numbered = Steering.numbered(rules)
    let parse = least { for number in 0..<self.rules { _ = try? Rule(parsing: Self.text(number)) } }
    let check = least { _ = try? Steering(rules, for: receivers) }
    let compile = least { _ = try? CardProgram(Steering(rules, for: receivers), for: .intel82599) }
    var table: [String: Int] = [:]
    let texts = numbered.map(\.text)
    let yardstick = least {
      table = [:]
      for (index, text) in texts.enumerated() { table[text] = index }
    }
    var program = try CardProgram(Steering(rules, for: receivers), for: .intel82599)
    var next = self.rules
    var missed = 0
    let more = try (0..<max(rounds, 1)).map { try Rule(parsing: Self.text(self.rules + $0)) }
    let add = least {
      if (try? program.add(more[next - self.rules])).flatMap({ $0 }) == nil { missed += 1 }
      next += 1
    }
    guard missed == 0 else { fatalError("\(missed) rules were no simple additions") }
    print("yardstick (texts into a dictionary)  \(ms(yardstick))")
    print("parse \(self.rules) rules                    \(ms(parse))  \(ratio(parse, yardstick))")
    print("order them, find overlaps            \(ms(check))  \(ratio(check, yardstick))")
    print("compile and prove, 82599             \(ms(compile))  \(ratio(compile, yardstick))")
    print("add one more                         \(ms(add))  \(ratio(add, yardstick))")
    print("exact flows: \(program.tables?.exactFlows.count ?? 0)")
  }

  static func text(_ number: Int) -> String {
    "match ip.src=10.\(number >> 8 & 255).\(number & 255).1 ip.dst=192.0.2.\(number % 200) tcp.src=\(1024 + number % 50_000) tcp.dst=\([80, 443, 22][number % 3]) then vm vm\(number % 8)"
  }

  private func least(_ body: () -> Void) -> Duration {
    (0..<max(rounds, 1)).map { _ in ContinuousClock().measure(body) }.min() ?? .zero
  }
  private func ms(_ time: Duration) -> String {
    let microseconds = time.components.seconds * 1_000_000 + time.components.attoseconds / 1_000_000_000_000
    return "\(microseconds / 1000).\(String(1000 + microseconds % 1000).dropFirst()) ms"
  }
  private func ratio(_ a: Duration, _ b: Duration) -> String {
    let tenths = Int(a / b * 10 + 0.5)
    return "\(tenths / 10).\(tenths % 10)×"
  }
}
