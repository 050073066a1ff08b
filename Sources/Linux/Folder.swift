internal import Glibc

/// Folders and links of the file system, as sysfs has them.
public enum Folder {
  /// The names in a folder, without `.` and `..`, in order; nil if it cannot be opened.
  public static func names(_ path: String) -> [String]? {
    guard let folder = unsafe opendir(path) else { return nil }
    defer { unsafe closedir(folder) }
    var names: [String] = []
    while let entry = unsafe readdir(folder) {
      let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { start in
        unsafe String(cString: UnsafeRawPointer(start).assumingMemoryBound(to: CChar.self))
      }
      if name != "." && name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  /// The last part of what a symbolic link leads to; nil if there is none.
  public static func target(ofLink path: String) -> String? {
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = unsafe readlink(path, &buffer, buffer.count)
    guard count > 0 else { return nil }
    let text = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return text.split(separator: "/").last.map(String.init)
  }

  /// A path without symbolic links; nil if it leads nowhere.
  public static func resolved(_ path: String) -> String? {
    guard let found = unsafe realpath(path, nil) else { return nil }
    defer { unsafe free(found) }
    return unsafe String(cString: found)
  }

  public static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }
}

extension WholeFile {
  /// The text of a small file of the kernel's, without the end of its last line; nil if it cannot be read.
  public static func text(_ path: String) -> String? {
    guard let bytes = (try? read(path)) ?? nil else { return nil }
    let text = String(decoding: bytes, as: UTF8.self)
    return text.hasSuffix("\n") ? String(text.dropLast()) : text
  }
}
