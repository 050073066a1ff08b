internal import CLinux
internal import Glibc

/// Where the pages of a memory file come from.
public enum PageSize: Hashable, Sendable {
  /// The machine's ordinary pages.
  case standard
  /// The same, in pieces of 2 MiB, for each of which the kernel may have one large page: see `Mapping.collapse`.
  case large
  /// Huge pages of the size that the machine has set up as its default; they must be reserved beforehand.
  case huge

  /// In bytes.
  public var byteCount: Int {
    switch self {
    case .standard: return Int(sysconf(Int32(_SC_PAGESIZE)))
    case .large, .huge: return 2 << 20
    }
  }
}

/// Memory with a descriptor: what a front-end shares with a back-end. memfd_create(2).
public struct MemoryFile: ~Copyable, Sendable {
  public let descriptor: OwnedDescriptor
  /// Bytes, a multiple of the page size.
  public let byteCount: Int
  public let pages: PageSize

  public init(name: String, byteCount: Int, pages: PageSize = .standard) throws(SystemError) {
    precondition(byteCount > 0)
    let unit = pages.byteCount
    let rounded = (byteCount + unit - 1) / unit * unit
    let flags = sl_mfd_cloexec() | (pages == .huge ? sl_mfd_hugetlb() : sl_mfd_allow_sealing())
    let number = unsafe sl_memfd_create(name, flags)
    guard number >= 0 else { throw SystemError(.memfdCreate) }
    guard ftruncate(number, off_t(rounded)) == 0 else {
      let error = SystemError(.ftruncate)
      _ = close(number)
      throw error
    }
    descriptor = OwnedDescriptor(adopting: number)
    self.byteCount = rounded
    self.pages = pages
  }
}
