import Glibc

/// Files that a replay writes must not be those that it reads, nor each other: opening one empties it.
enum OutputFiles {
  /// - Parameter outputs: each with the option and the value that name it.
  static func check(inputs: [String], outputs: [(option: String, value: String, path: String)]) throws(Failure) {
    var taken: [(file: Identity, what: String)] = inputs.compactMap { path in
      path == "-" ? nil : Identity(path).map { ($0, "this file is replayed; writing to it would empty it first") }
    }
    for output in outputs {
      guard let file = Identity(output.path) else {
        throw .usage(output.option, output.value, "the folder does not exist")
      }
      if let other = taken.first(where: { $0.file == file }) {
        throw .usage(output.option, output.value, other.what)
      }
      if !file.isSharable { taken.append((file, "\(output.option) \(output.value) is written there already")) }
    }
  }

  /// Which file a path leads to, whether it exists yet or not. Nil if there cannot be one.
  private struct Identity: Equatable {
    let device: UInt
    let node: UInt
    /// Of a file that is still to be made, in its folder; else empty.
    let name: String
    /// A device, which keeps nothing that could be lost.
    let isSharable: Bool

    init?(_ path: String) {
      var status = stat()
      if unsafe stat(path, &status) == 0 {
        self.init(status, name: "")
      } else {
        let name = path.split(separator: "/").last.map(String.init) ?? path
        let folder = String(path.dropLast(name.count))
        guard unsafe stat(folder.isEmpty ? "." : folder, &status) == 0 else { return nil }
        self.init(status, name: name)
      }
    }
    private init(_ status: stat, name: String) {
      device = UInt(status.st_dev)
      node = UInt(status.st_ino)
      self.name = name
      isSharable = status.st_mode & S_IFMT == S_IFCHR
    }
  }
}
