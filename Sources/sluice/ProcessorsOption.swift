import Linux

/// `--cpus`: processors for the datapath and the guests.
enum ProcessorsOption {
  static func parse(_ text: String) throws(Failure) -> [Int] {
    guard let numbers = Quantity.counts(text) else { throw .usage("--cpus", text, "write one or two numbers of processors, like 0,1") }
    let allowed = Thread.processors
    if let number = numbers.first(where: { !allowed.contains($0) }) {
      throw .usage("--cpus", text, "this process may not run on processor \(number); it may on \(ranges(allowed))")
    }
    guard numbers.count <= 2, Set(numbers).count == numbers.count else {
      throw .usage("--cpus", text, "write one processor, or two different ones: for the datapath and for the guests")
    }
    return numbers
  }
}

/// `[0, 1, 2, 5]` as `0-2, 5`.
func ranges(_ numbers: [Int]) -> String {
  var parts: [(first: Int, last: Int)] = []
  for number in numbers {
    if let last = parts.last, last.last + 1 == number { parts[parts.count - 1].last = number } else { parts.append((number, number)) }
  }
  return parts.map { $0.first == $0.last ? "\($0.first)" : "\($0.first)-\($0.last)" }.joined(separator: ", ")
}
