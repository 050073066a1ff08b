internal import Capture
internal import FlowSteering
internal import Glibc
internal import Linux
internal import Replay

/// Where synthetic traces lie while they are replayed: a folder of our own that goes with us, or one that was asked for.
final class TraceFolder {
  let path: String
  private let isKept: Bool
  private var written: [SyntheticTrace: String] = [:]

  /// - Parameter kept: the folder that is to have them afterwards; it is made if there is none.
  init(_ kept: String?) throws(ReplayError) {
    isKept = kept != nil
    if let kept {
      path = kept
      guard unsafe mkdir(kept, 0o777) == 0 || errno == EEXIST else { throw .machine("--keep-traces \(kept): \(SystemError.text(errno))") }
      guard Folder.names(kept) != nil else { throw .usage("--keep-traces \(kept): \(SystemError.text(errno))") }
    } else {
      // The numbers of processes come again, and a folder that one could not delete is still there then.
      var name = Array("\(Self.temporary)/sluice-bench-XXXXXX".utf8CString)
      let made = unsafe mkdtemp(&name) != nil
      let reason = errno
      path = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
      guard made else { throw .machine("a folder for traces in \(Self.temporary): \(SystemError.text(reason)); TMPDIR chooses another") }
    }
  }

  private static var temporary: String {
    guard let name = unsafe getenv("TMPDIR") else { return "/tmp" }
    let text = unsafe String(cString: name)
    return text.isEmpty ? "/tmp" : text
  }

  /// The files of a point's frames, written when they are first asked for.
  func files(of trace: Point.Trace) throws(ReplayError) -> [String] {
    switch trace {
    case .files(let files): return files
    case .made(let made):
      if let path = written[made] { return [path] }
      let file = "\(path)/\(made.name).pcap"
      try write(file) { path throws(ReplayError) in
        do throws(CaptureError) { try made.write(to: path) } catch { throw .machine("\(error)") }
      }
      written[made] = file
      return [file]
    }
  }

  /// Leaves rules beside the traces, where these are to be replayed again.
  func keep(_ rules: [Rule]) throws(ReplayError) {
    guard isKept, !rules.isEmpty else { return }
    let file = "\(path)/rules-\(rules.count).rules"
    let text = rules.map(\.text).joined(separator: "\n") + "\n"
    try write(file) { path throws(ReplayError) in
      do throws(SystemError) { try WholeFile.replace(path, with: Array(text.utf8)) } catch { throw .machine("\(path): \(error)") }
    }
  }

  /// Writes a file that was not there. In a folder of the user's it may be, from a run before, or with the same name and of
  /// the user's own: then it is left as it is, and must be what would have been written.
  private func write(_ file: String, _ body: (String) throws(ReplayError) -> Void) throws(ReplayError) {
    guard isKept, unsafe access(file, F_OK) == 0 else { return try body(file) }
    let other = "\(file).\(getpid())"
    defer { unsafe unlink(other) }
    try body(other)
    do throws(SystemError) {
      if try WholeFile.read(file) == WholeFile.read(other) { return }
    } catch { throw .machine("\(file): \(error)") }
    throw .usage("--keep-traces \(path): \(file) is there, and is another; give a folder without it")
  }

  /// Deletes what nobody asked to keep.
  func remove() {
    guard !isKept else { return }
    for file in written.values { unsafe unlink(file) }
    unsafe rmdir(path)
  }
}
