internal import CLinux

/// What this process may have of the machine's.
public enum ProcessLimits {
  /// Raises the soft limit on descriptors to the hard one, and lets the kernel make room for `count` of them at once.
  ///
  /// - Parameter count: descriptors that the process may come to have.
  /// - Returns: the limit; less than `count` if the hard one is.
  public static func reserveDescriptors(_ count: Int) -> Int {
    let limit = Int(clamping: sl_raise_descriptor_limit())
    if limit >= count { _ = sl_reserve_descriptors(UInt64(count)) }
    return limit
  }

  /// Prepares the raising of other processes' eventfds: see `OwnedDescriptor.raise`.
  ///
  /// - Throws: EAGAIN if other processes have taken all of `fs.aio-max-nr`.
  public static func prepareNotifications() throws(SystemError) {
    guard sl_raise_prepare() == 0 else { throw SystemError(.ioSetup) }
  }
}
