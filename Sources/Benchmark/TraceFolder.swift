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
    } else {
      path = "\(Self.temporary)/sluice-bench-\(getpid())"
      guard unsafe mkdir(path, 0o700) == 0 else { throw .machine("a folder for traces, \(path): \(SystemError.text(errno))") }
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
      do throws(CaptureError) { try made.write(to: file) } catch { throw .machine("\(error)") }
      written[made] = file
      return [file]
    }
  }

  /// Leaves rules beside the traces, where these are to be replayed again.
  func keep(_ rules: [Rule]) throws(ReplayError) {
    guard isKept, !rules.isEmpty else { return }
    let file = "\(path)/rules-\(rules.count).rules"
    let text = rules.map(\.text).joined(separator: "\n") + "\n"
    do throws(SystemError) { try WholeFile.replace(file, with: Array(text.utf8)) } catch { throw .machine("\(file): \(error)") }
  }

  /// Deletes what nobody asked to keep.
  func remove() {
    guard !isKept else { return }
    for file in written.values { unsafe unlink(file) }
    unsafe rmdir(path)
  }
}
