internal import Glibc

/// Calls `body` with no signal blocked on this thread. A program inherits what the thread that starts it blocks, and a
/// dispatch queue's thread blocks every signal: a shell would wait for SIGCHLD for ever.
public func withNoSignalBlocked<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
  var (none, before) = (sigset_t(), sigset_t())
  unsafe sigemptyset(&none)
  unsafe pthread_sigmask(SIG_SETMASK, &none, &before)
  defer { unsafe pthread_sigmask(SIG_SETMASK, &before, nil) }
  return try body()
}
