/// `--write [VM=]FILE`: a file that gets what a VM received; without a name, what all received.
enum WriteOption {
  /// - Parameter vms: the names there are. A file whose name has an equals sign is told apart by a slash or a dot
  ///   before that: no VM begins so.
  static func parse(_ text: String, vms: [String]) throws(Failure) -> (vm: String, path: String) {
    let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    let isPair = parts.count == 2 && !parts[0].contains("/") && !parts[0].hasPrefix(".")
    let (vm, path) = isPair ? (String(parts[0]), String(parts[1])) : ("", text)
    if isPair && !vms.contains(vm) {
      throw .usage(
        "--write", text,
        "no VM \"\(vm)\"; there are \(vms.joined(separator: ", ")). A file of that name is written ./\(text)")
    }
    if path.isEmpty { throw .usage("--write", text, "no file named") }
    if path == "-" { throw .usage("--write", text, "standard output is for the report; name a file or a named pipe") }
    return (vm, path)
  }
}
