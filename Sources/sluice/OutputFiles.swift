import Glibc
import Linux

/// Files that a run writes must be such as it can write, must not be those that it reads, nor each other: opening one empties it.
enum OutputFiles {
  /// - Parameter outputs: each with the option and the value that name it.
  static func check(inputs: [String], outputs: [(option: String, value: String, path: String)]) throws(Failure) {
    var taken: [(file: Identity, what: String)] = inputs.compactMap { path in
      path == "-" ? nil : Identity(path).map { ($0, "this file is replayed; writing to it would empty it first") }
    }
    for output in outputs {
      if output.path.isEmpty { throw .usage(output.option, output.value, "give the name of a file") }
      guard let file = Identity(output.path) else {
        throw .usage(output.option, output.value, "the folder does not exist")
      }
      if let other = taken.first(where: { $0.file == file }) {
        throw .usage(output.option, output.value, other.what)
      }
      if file.isFolder { throw .usage(output.option, output.value, "this is a folder; give the name of a file") }
      // Before a long run, not after it.
      if let reason = file.refusal(output.path) { throw Failure(status: .machine, message: "\(output.option) \(output.value): \(reason)") }
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
    let isFolder: Bool

    /// Why this process may not write there, in words; nil: it may.
    func refusal(_ path: String) -> String? {
      let place = name.isEmpty ? path : Self.folder(of: path)
      return unsafe access(place, W_OK) == 0 ? nil : SystemError.text(errno)
    }
    private static func folder(of path: String) -> String {
      let folder = String(path.dropLast(path.split(separator: "/").last?.count ?? 0))
      return folder.isEmpty ? "." : folder
    }

    init?(_ path: String) {
      var status = stat()
      if unsafe stat(path, &status) == 0 {
        self.init(status, name: "")
      } else {
        let name = path.split(separator: "/").last.map(String.init) ?? path
        guard unsafe stat(Self.folder(of: path), &status) == 0 else { return nil }
        self.init(status, name: name)
      }
    }
    private init(_ status: stat, name: String) {
      device = UInt(status.st_dev)
      node = UInt(status.st_ino)
      self.name = name
      isSharable = name.isEmpty && status.st_mode & S_IFMT == S_IFCHR
      isFolder = name.isEmpty && status.st_mode & S_IFMT == S_IFDIR
    }
  }
}
