#if THREAD_SANITIZER
internal import Glibc
#else
public import Synchronization
#endif

/// A value that threads reach one at a time.
///
/// The standard library's mutex waits by futex calls of its own, in which ThreadSanitizer sees no lock: every access under it
/// would be reported as a race. A build for that tool (`-D THREAD_SANITIZER`, see `Tests/Gates/sanitize.sh`) has a pthread mutex
/// instead, which the tool knows. Nothing else differs.
///
/// `@safe`: the pthread mutex and the value live in one allocation of this owner's, and are reached with the lock held.
@safe public struct Mutex<Value: ~Copyable>: ~Copyable, @unchecked Sendable {
  #if THREAD_SANITIZER
  private let lock: UnsafeMutablePointer<pthread_mutex_t>
  private let value: UnsafeMutablePointer<Value>

  public init(_ value: consuming sending Value) {
    unsafe lock = .allocate(capacity: 1)
    unsafe lock.initialize(to: pthread_mutex_t())
    unsafe pthread_mutex_init(lock, nil)
    unsafe self.value = .allocate(capacity: 1)
    unsafe self.value.initialize(to: value)
  }
  deinit {
    unsafe pthread_mutex_destroy(lock)
    unsafe lock.deallocate()
    unsafe value.deinitialize(count: 1)
    unsafe value.deallocate()
  }

  /// Runs `body` with the value, when no other thread has it.
  public borrowing func withLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout sending Value) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result {
    unsafe pthread_mutex_lock(lock)
    defer { unsafe pthread_mutex_unlock(lock) }
    return try unsafe body(&value.pointee)
  }
  #else
  @usableFromInline let lock: Synchronization.Mutex<Value>

  @inlinable public init(_ value: consuming sending Value) { lock = Synchronization.Mutex(value) }

  /// Runs `body` with the value, when no other thread has it.
  @inlinable @inline(__always) public borrowing func withLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout sending Value) throws(Failure) -> sending Result
  ) throws(Failure) -> sending Result { try lock.withLock(body) }
  #endif
}
