public import Linux

/// Why the control socket cannot be there.
public enum ControlSocketError: Error, Hashable, Sendable, CustomStringConvertible {
  /// A system call failed, with errno's value.
  case system(String, path: String, code: CInt)
  /// The socket cannot be made; somebody else may listen there.
  case listener(UnixListenerError)
  /// Others may put a socket of theirs in our socket's place.
  case openFolder(path: String)
  case noSuchUser(String)
  case noSuchGroup(String)
  /// The library's words.
  case library(String)

  public var description: String {
    switch self {
    case .system(let call, let path, let code): "\(path): \(call): \(SystemError.text(code))"
    case .listener(let error): "\(error)"
    case .openFolder(let path): "\(path): everybody may write to that folder, and could put another socket in this one's place"
    case .noSuchUser(let name): "there is no user \"\(name)\""
    case .noSuchGroup(let name): "there is no group \"\(name)\""
    case .library(let text): text
    }
  }
}
