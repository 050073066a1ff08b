/// Rates for a person: a table, or a line for each VM.
enum RatesText {
  /// - Parameter columns: of the terminal; longer lines are cut.
  static func table(_ rates: Rates, colours: Bool, columns: Int = 80) -> String {
    let style = Style(isOn: colours)
    let names = rates.vms.map { printable($0.name) }
    let width = min(24, max(8, names.map(\.count).max() ?? 0))
    func line(_ name: String, _ way: String, _ cells: [String]) -> String {
      rightPadded(String(name.prefix(width)), to: width) + " " + rightPadded(way, to: 4)
        + zip(cells, [15, 13, 10, 16]).map { leftPadded($0, to: $1) }.joined()
    }
    func cells(_ path: Rates.Path) -> [String] {
      [
        frameRate(path.frames), bitRate(path.bits), path.lentPercent.map { percent($0) } ?? "-",
        path.drops > 0 ? "\(significant(path.drops)) /s" : "0",
      ]
    }
    var lines = [
      "up \(clock(rates.uptime)), rates over \(significant(rates.seconds)) s",
      style.bold(line("", "", ["frames", "bits", "lent", "drops"])),
      line("wire", "in", cells(rates.wire)),
    ]
    var drops: [(String, String, [String: Double])] = [("wire", "in", rates.wire.dropsBy)]
    for (name, vm) in zip(names, rates.vms) {
      lines.append(line(name, "rx", cells(vm.receive)))
      lines.append(line("", "tx", cells(vm.transmit)))
      drops += [(name, "rx", vm.receive.dropsBy), (name, "tx", vm.transmit.dropsBy)]
    }
    for (name, way, by) in drops where !by.isEmpty { lines.append("\(name) \(way) drops: \(reasons(by))") }
    return lines.enumerated().map { $0.offset == 1 ? $0.element : String($0.element.prefix(columns)) }.joined(separator: "\n") + "\n"
  }

  /// A line for each VM, for who reads on: the time up, the VM, what it receives, what it sends.
  static func lines(_ rates: Rates) -> String {
    rates.vms.map { vm in
      let name = printable(vm.name)
      let receive = words(vm.receive)
      let transmit = words(vm.transmit)
      return "\(clock(rates.uptime)) \(name) rx \(receive) tx \(transmit)\n"
    }.joined()
  }

  private static func words(_ path: Rates.Path) -> String {
    let lent = path.lentPercent.map { ", \(percent($0)) lent" } ?? ""
    let drops = path.drops > 0 ? ", \(significant(path.drops)) drops/s (\(reasons(path.dropsBy)))" : ""
    return "\(frameRate(path.frames)), \(bitRate(path.bits))\(lent)\(drops)"
  }

  private static func reasons(_ by: [String: Double]) -> String {
    by.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { "\(printable($0.key)) \(significant($0.value))/s" }.joined(separator: ", ")
  }

  /// Never "100 %" for less than all.
  private static func percent(_ value: Double) -> String {
    value >= 100 ? "100 %" : value > 99.99 ? "> 99.99 %" : value == 0 ? "0 %" : value < 0.01 ? "< 0.01 %" : fixed(value, 2) + " %"
  }
}
