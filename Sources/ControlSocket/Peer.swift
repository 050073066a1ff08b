internal import Glibc

/// Who is at the other end of a connection, as the kernel noted it when that was made: SO_PEERCRED, unix(7).
///
/// It says who connected, not who holds the descriptor now: a process can pass one on.
struct Peer: Hashable, Sendable {
  let pid: Int32
  let uid: UInt32
  let gid: UInt32
  /// Supplementary ones.
  let groups: [UInt32]

  enum Access: Hashable, Sendable {
    /// Neither the superuser, nor the service's user, nor of the socket's group.
    case none
    /// May look.
    case reads
    /// May look, and change what happens.
    case changes
  }

  /// - Parameters:
  ///   - service: the user that the back-end runs as.
  ///   - group: the socket's.
  func access(service: UInt32, group: UInt32) -> Access {
    if uid == 0 || (uid == service && service != Self.nobody) { return .changes }
    return group != Self.nobody && (gid == group || groups.contains(group)) ? .reads : .none
  }

  /// What every user and group looks like that a user namespace does not know, user_namespaces(7): to be nobody is to be
  /// anybody.
  private static let nobody: UInt32 = 65534
}
