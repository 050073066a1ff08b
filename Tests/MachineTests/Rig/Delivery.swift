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
  let injection = try backEnd.inject(trace, laps: 1)
  try injection.end(within: 120)
  return try sink.end()
}
