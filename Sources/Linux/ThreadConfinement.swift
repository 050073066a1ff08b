internal import Glibc

/// Says that something belongs to one thread: the first that uses it. Use by another is a mistake of ours, and stops the program
/// before anything is torn, instead of now and then behind it.
public struct ThreadConfinement {
  private var owner: pthread_t?
  public init() {}

  /// To be called by every use. Costs no system call.
  public mutating func check() {
    let caller = pthread_self()
    if owner == nil { owner = caller }
    precondition(owner == caller, "used by two threads")
  }
}
