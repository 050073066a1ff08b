internal import FlowSteering

extension Match {
  /// With what a dialect says beside the fields, in canonical form.
  func completed(_ version: IPVersion?, _ transport: Transport?) throws(Conflict) -> Match {
    var match = self
    if let version, ipVersion != version {
      // A type that says less goes.
      if let pattern = self[.etherType], pattern.matches(UInt128(version.etherType)) { match = Match(pairs.filter { $0.field != .etherType }) }
      try match.insert(Pair(.etherType, .exactly(version.etherType, in: .etherType)))
    }
    if let transport, self.transport != transport {
      if let pattern = self[.ipProtocol], pattern.matches(UInt128(transport.number)) { match = Match(match.pairs.filter { $0.field != .ipProtocol }) }
      try match.insert(Pair(.ipProtocol, .exactly(transport.number, in: .ipProtocol)))
    }
    return match.canonical
  }
}
