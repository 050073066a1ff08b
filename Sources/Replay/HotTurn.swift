public import Datapath
public import Intel

/// One turn of a path over a queue of Intel's cards: the whole of the datapath, as one function of the binary.
///
/// `@_noLocks` makes the compiler refuse what could allocate, retain, lock or look up metadata. What it does
/// not see (calls that were not inlined, checks of exclusive access) `Tests/Gates` looks for in the machine code
/// of this function.
#if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
@_noLocks
#endif
@inline(never) public func turnPath(_ path: inout ReceivePath<IntelReceiveQueue>) -> Int {
  path.turn()
}

/// What comes before it where there are many paths: asks for what the next ones will touch. As little is allowed to it.
#if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
@_noLocks
#endif
@inline(never) func askAhead(_ worker: borrowing Worker<IntelReceiveQueue>, from number: Int) {
  worker.lookAhead(from: number)
}

/// Frames of one step of the card's model where as many rings are turned after it: a turn's worth for each, up to some. With one for
/// all, a turn of many rings' would find a frame or none, and pay for showing each by itself.
public func modelBurst(rings: Int) -> Int { Int(ReceivePath<IntelReceiveQueue>.batch) * min(max(rings, 1), 32) }
