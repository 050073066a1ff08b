internal import CLinux

/// What the C library does with large blocks of memory that are freed.
public enum LargeBlocks {
  /// Blocks of a megabyte and more go back to the machine at once. Else the library raises its mark with every large
  /// block that it sees freed, and a process that has read one long trace stays as large as that for ever.
  public static func returnWhenFreed() { sl_return_blocks_from(1 << 20) }
}
