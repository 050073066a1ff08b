internal import CLinux
internal import Glibc

/// Waiting for any of a few descriptors. poll(2).
public enum Readiness {
  /// Returns when one of them is readable, has failed or was hung up, or when the time is over.
  ///
  /// - Parameter limit: nanoseconds, or nil for as long as it takes. A signal may end it sooner.
  public static func wait(for numbers: [CInt], atMost limit: UInt64?) {
    var requests = numbers.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    unsafe requests.withUnsafeMutableBufferPointer { requests in
      _ = unsafe sl_poll(requests.baseAddress, nfds_t(requests.count), limit.map { Int64(clamping: $0) } ?? -1)
    }
  }
}
