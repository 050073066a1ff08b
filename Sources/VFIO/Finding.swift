/// One thing that was looked at: what it is, why it matters, and what mends it.
public struct Finding: Hashable, Sendable, Codable {
  public enum Level: String, Sendable, Codable, CaseIterable, Comparable {
    /// As it should be.
    case good
    /// It is so, and may be meant.
    case note
    /// It works, but worse, or less safely, than it could.
    case warning
    /// It does not work so.
    case error
    private var rank: Int { Self.allCases.firstIndex(of: self) ?? 0 }
    public static func < (a: Level, b: Level) -> Bool { a.rank < b.rank }
  }
  /// `host`, or a PCI address.
  public var subject: String
  /// A short name: `iommu`, `driver`, `memlock`, …; stable.
  public var topic: String
  public var level: Level
  public var what: String
  /// Empty where all is well.
  public var why: String
  /// One line to type or to do; empty where there is nothing to mend.
  public var mend: String

  public init(_ subject: String, _ topic: String, _ level: Level, _ what: String, why: String = "", mend: String = "") {
    (self.subject, self.topic, self.level, self.what, self.why, self.mend) = (subject, topic, level, what, why, mend)
  }
}

/// Where the kernel tells of itself; somewhere else in tests.
public struct KernelFiles: Hashable, Sendable {
  public var sysfs = "/sys"
  public var devices = "/dev"
  public var processes = "/proc"
  public init() {}
  /// The same under a folder.
  public init(under root: String) { (sysfs, devices, processes) = (root + "/sys", root + "/dev", root + "/proc") }
}
