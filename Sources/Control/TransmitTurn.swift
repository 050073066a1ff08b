internal import Datapath
internal import Intel

/// One turn of a transmit path over a queue of Intel's cards, as one function of the binary: see `turnPath`.
#if !DEBUG  // Unoptimised generics cannot be shown to take no lock.
@_noLocks
#endif
@inline(never) func turnTransmitPath(_ path: inout TransmitPath<IntelTransmitQueue>) -> Int {
  path.turn()
}
