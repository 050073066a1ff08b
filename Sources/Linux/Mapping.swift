internal import CLinux
internal import Glibc

/// Pages mapped into this process, readable and writable; unmapped when the owner goes away.
///
/// `@safe`: the address leaves only through `base`, which is unsafe to use and says so at each use.
@safe public struct Mapping: ~Copyable, @unchecked Sendable {
  /// The first byte. Valid while this mapping lives.
  public let base: UnsafeMutableRawPointer
  public let byteCount: Int
  /// Whose file it is, if it came from a front-end: it unmaps the pages.
  private let reaper: Reaper?
  /// Of the guard against a file that becomes shorter; -1: there is none.
  private let guardNumber: CInt

  /// Maps pages of a file, shared with all who map it.
  ///
  /// - Parameter alignment: of the first byte in this process, in bytes, a power of two: 2 MiB lets a
  ///   bus (and the kernel) use large pages.
  public init(
    of file: borrowing OwnedDescriptor, byteCount: Int, offset: Int = 0, alignment: Int = 4096
  ) throws(SystemError) {
    try self.init(number: file.number, byteCount: byteCount, offset: offset, alignment: alignment)
  }

  /// Maps pages of a file that somebody else may make shorter. Once something is touched that is gone, all of the
  /// mapping reads as zeros and writing goes nowhere, instead of a signal that ends the process; `isTruncated` says that
  /// it happened.
  ///
  /// - Parameters:
  ///   - page: of the file, in bytes: `byteCount`, `offset`, `alignment` and `phase` are multiples of it.
  ///   - phase: where the first byte lies between two multiples of `alignment`: as far behind the lower one as the same
  ///     byte does where somebody else has it.
  public init(
    ofForeign file: borrowing OwnedDescriptor, byteCount: Int, offset: Int, alignment: Int, phase: Int = 0, page: Int
  ) throws(SystemError) {
    precondition(page > 0 && byteCount % page == 0 && offset % page == 0 && alignment % page == 0 && phase % page == 0)
    try self.init(
      number: file.number, byteCount: byteCount, offset: offset, alignment: alignment, phase: phase, isGuarded: true, reaper: file.reaper)
  }

  /// Something was touched that the file no longer has.
  public var isTruncated: Bool { sl_guard_was_touched(guardNumber) != 0 }

  /// Maps fresh zeroed pages that a forked child, but no other process, would share.
  public init(anonymousBytes byteCount: Int, alignment: Int = 4096) throws(SystemError) {
    try self.init(number: -1, byteCount: byteCount, offset: 0, alignment: alignment)
  }

  private init(
    number: CInt, byteCount: Int, offset: Int, alignment: Int, phase: Int = 0, isGuarded: Bool = false, reaper: Reaper? = nil
  ) throws(SystemError) {
    precondition(byteCount > 0 && offset >= 0 && alignment > 0 && alignment & (alignment - 1) == 0)
    precondition(phase >= 0 && phase < alignment)
    let page = PageSize.standard.byteCount
    // A length that cannot even be rounded up is one that the kernel would refuse.
    guard byteCount <= Int.max - page - max(alignment, page) else { throw SystemError(.mmap, code: ENOMEM) }
    let length = (byteCount + page - 1) / page * page
    // Reserve more than is asked for, then map over the aligned part and give the rest back.
    let slack = max(alignment, page)
    let reserved = unsafe mmap(nil, length + slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let reserved = unsafe reserved, unsafe reserved != MAP_FAILED else { throw SystemError(.mmap) }
    let start = UInt(bitPattern: reserved)
    let aligned = ((start - UInt(phase) + UInt(slack) - 1) & ~(UInt(slack) - 1)) + UInt(phase)
    let first = unsafe reserved + Int(aligned - start)
    if aligned > start { unsafe munmap(reserved, Int(aligned - start)) }
    let tail = start + UInt(length + slack) - (aligned + UInt(length))
    if tail > 0 { unsafe munmap(first + length, Int(tail)) }
    let flags = MAP_SHARED | MAP_FIXED | (number < 0 ? MAP_ANONYMOUS : 0)
    let mapped = unsafe mmap(first, length, PROT_READ | PROT_WRITE, flags, number, off_t(offset))
    guard let mapped = unsafe mapped, unsafe mapped != MAP_FAILED else {
      let error = SystemError(.mmap)
      unsafe munmap(first, length)
      throw error
    }
    let guardNumber = isGuarded ? unsafe sl_guard(mapped, length) : -1
    // What nobody guards must not be touched.
    guard !isGuarded || guardNumber >= 0 else {
      unsafe munmap(first, length)
      throw SystemError(.mmap, code: ENOMEM)
    }
    unsafe base = mapped
    self.byteCount = byteCount
    self.guardNumber = guardNumber
    self.reaper = reaper
    unsafe _ = madvise(mapped, length, MADV_DONTDUMP)
    // Memory that frames of many guests go through is more than a processor has translations for, by small pages. Where the
    // file has no large ones, or may not, nothing happens.
    if length >= 2 << 20 { unsafe _ = madvise(mapped, length, MADV_HUGEPAGE) }
  }

  /// Asks for large pages for what is there now, whatever the kernel's settings say of pages to come.
  public func collapse() { unsafe _ = madvise(base, byteCount, 25 /* MADV_COLLAPSE, newer than some headers */) }

  deinit {
    sl_guard_end(guardNumber)
    if let reaper { unsafe reaper.unmap(base, byteCount) } else { unsafe munmap(base, byteCount) }
  }
}
