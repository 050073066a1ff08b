internal import Glibc

/// Users and groups by name or number, as chown(1) takes them.
public enum Accounts {
  /// The user of this name, or else of this number; nil if there is no such name and it is no number.
  public static func user(_ text: String) -> UInt32? {
    unsafe withScratch { scratch in
      var entry = unsafe passwd()
      var found: UnsafeMutablePointer<passwd>?
      let code = unsafe getpwnam_r(text, &entry, scratch.baseAddress!, scratch.count, &found)
      return unsafe code == 0 && found != nil ? entry.pw_uid : nil
    } ?? number(text)
  }

  /// The group of this name, or else of this number; nil as for users.
  public static func group(_ text: String) -> UInt32? {
    unsafe withScratch { scratch in
      var entry = unsafe Glibc.group()
      var found: UnsafeMutablePointer<Glibc.group>?
      let code = unsafe getgrnam_r(text, &entry, scratch.baseAddress!, scratch.count, &found)
      return unsafe code == 0 && found != nil ? entry.gr_gid : nil
    } ?? number(text)
  }

  /// -1 is "leave it as it is" to chown(2), and nobody's number.
  private static func number(_ text: String) -> UInt32? {
    text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) } ? UInt32(text).flatMap { $0 == .max ? nil : $0 } : nil
  }

  /// An entry's strings have their place here. A group of thousands does not fit, and is then not found by name.
  private static func withScratch(_ body: (UnsafeMutableBufferPointer<CChar>) -> UInt32?) -> UInt32? {
    unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: 1 << 16) { unsafe body($0) }
  }
}
