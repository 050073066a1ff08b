// The step that most tests have in common.

/// Boots a machine's guest, injects a trace, and gives what the guest counted.
func delivered(_ trace: Trace, by backEnd: any BackEnd, to machine: Machine) throws -> Tally {
  try machine.isUp()
  try machine.guest.bringUp()
  return try delivered(trace, by: backEnd, to: machine.guest)
}

/// Injects a trace for a guest that is up, and gives what it counted.
func delivered(_ trace: Trace, by backEnd: any BackEnd, to guest: Guest) throws -> Tally {
  let sink = try Sink(in: guest, trace)
  let settled = try backEnd.inject(trace, laps: 1).end()
  let tally = try sink.end()
  // Both sides say the same.
  guard settled == Settled(delivered: trace.frames) else { throw RigError("\(settled) of \(trace.frames) frames; the guest: \(tally)") }
  try backEnd.settle()
  return tally
}
