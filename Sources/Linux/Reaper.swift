internal import CLinux

/// Closes descriptors that one other process handed to us, on a thread of its own.
///
/// The last close of a file is its owner's to delay, for as long as it likes: a TCP socket with SO_LINGER, a FUSE server
/// that does not answer FLUSH, a network file system, a Unix socket with such descriptors in its queue. So each VM has a
/// reaper, and whatever came from its front-end goes there to be closed: a front-end that delays it delays its own VM's
/// descriptors, and no thread that others need. The thread starts with the first descriptor to close. Memory goes there, too:
/// the last mapping of a file frees all of its pages when it ends, which takes some 50 ms a GiB.
///
/// What is handed over counts until it is closed: `openCount` is all that a VM costs of the process's descriptors.
///
/// A thread that sleeps in close(2) does not keep the process from ending by itself: nothing joins it. The kernel ends
/// sleeps that a signal can end. A FUSE server that has read its request and does not answer holds the thread, and with it
/// the process's descriptors, until the server answers or ends; so whatever a successor needs is closed explicitly before.
///
/// `@safe`: the object behind the pointer lives until `deinit`, and has a lock of its own.
@safe public final class Reaper: @unchecked Sendable {
  private let object: OpaquePointer
  /// Descriptors that may be open at a time.
  public let limit: Int

  /// - Parameter limit: see `hasRoom`.
  public init(limit: Int) {
    precondition(limit > 0)
    guard let object = unsafe sl_reaper_make(CInt(clamping: limit)) else { preconditionFailure("no memory for \(limit) numbers") }
    unsafe self.object = object
    self.limit = limit
  }
  deinit { unsafe sl_reaper_end(object) }

  /// Descriptors that were handed over and are not closed: in use, waiting, or being closed.
  public var openCount: Int { unsafe Int(sl_reaper_open_count(object)) }
  /// Descriptors that wait to be closed, or are being closed.
  public var waitingCount: Int { unsafe Int(sl_reaper_waiting_count(object)) }
  /// True if one message more, with as many descriptors as the kernel passes, stays within the limit.
  public var hasRoom: Bool { openCount + UnixStream.mostDescriptors <= limit }

  /// Counts descriptors that are the VM's from now on.
  func adopt(_ count: Int = 1) { unsafe sl_reaper_adopt(object, CInt(clamping: count)) }
  /// Unmaps memory of a file that came from the front-end, and returns at once. It counts in `openCount` until that is done.
  @unsafe func unmap(_ start: UnsafeMutableRawPointer, _ byteCount: Int) { unsafe sl_reaper_unmap(object, start, byteCount) }
  /// Raises an eventfd on the reaper's thread, before anything that is handed over later is closed; returns at once.
  func raise(_ number: CInt) { unsafe sl_reaper_raise(object, number) }
  /// Returns at once; the descriptor must have been counted.
  func close(_ number: CInt) { unsafe sl_reaper_close(object, number) }
}
