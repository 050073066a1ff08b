import Control
import Linux

extension Configuration {
  /// What is wrong with it on this machine, which another might have: users, groups, processors.
  func problemsHere() -> [ConfigurationError] {
    var found: [ConfigurationError] = []
    func look(_ socket: Socket, _ key: String) {
      if let owner = socket.owner, Accounts.user(owner) == nil { found.append(.init("\(key).owner", "there is no user \"\(owner)\"")) }
      if let group = socket.group, Accounts.group(group) == nil { found.append(.init("\(key).group", "there is no group \"\(group)\"")) }
    }
    if let control { look(control, "control") }
    for (index, vm) in vms.enumerated() {
      if case .server(let socket) = vm.endpoint { look(socket, "vms[\(index)].permissions") }
    }
    let allowed = Thread.processors
    if let number = workers.processors.first(where: { !allowed.contains($0) }) {
      found.append(.init("workers.cpus", "this process may not run on processor \(number); it may on \(ranges(allowed))"))
    }
    return found
  }
}
