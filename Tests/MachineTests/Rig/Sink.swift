// Patterned frames: made by `programs/trace`, counted by `programs/sink` in a guest and `programs/check` on the host.

import Foundation

/// A capture of patterned frames, on disk.
struct Trace {
  var path: String
  var first: Int
  var frames: Int

  /// `frames` frames from `first` on, each for all of the MACs in turn.
  init(first: Int = 0, frames: Int, macs: [String] = ["52:54:00:12:34:56"], folder: String) throws {
    self.first = first
    self.frames = frames
    path = folder + "/\(first)+\(frames)-" + macs.map { $0.suffix(2) }.joined() + ".pcap"
    if Rig.exists(path) { return }
    let script = #"exec "$0" "$@" > "$OUT""#
    let words = ["env", "OUT=" + path, "sh", "-c", script, Rig.program("trace"), "\(frames)", "\(first)"]
    try Shell.check(words + macs)
  }

  /// Traffic that lasts when it is looped: short frames, and so many that a VM does not miss a lap while it is away.
  /// Two rounds that follow one another have different indices, so that a frame that comes too late is astray.
  static func lasting(round: Int = 0, macs: [String] = ["52:54:00:12:34:56"], folder: String) throws -> Trace {
    let frames = 200_000
    // `pattern.h`: from 2^28 on frames are short.
    return try Trace(first: (1 << 28) + round % 2 * frames, frames: frames, macs: macs, folder: folder)
  }
  /// Of those, so many that a test ends them.
  static let endless = 10_000

  /// What a capture begins with: microseconds, version 2.4, Ethernet.
  static let header: Data = {
    let words: [UInt32] = [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65535, 1]
    return words.withUnsafeBytes { Data($0) }
  }()

  /// The records behind it: 16 bytes, of which the third word is the length, and the frame.
  func records() throws -> [Data] {
    let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
    var (records, start): ([Data], Int) = ([], Self.header.count)
    while start < bytes.count {
      let length = bytes[(start + 8)..<(start + 12)].reversed().reduce(0) { $0 << 8 | Int($1) }
      records.append(Data(bytes[start..<(start + 16 + length)]))
      start += 16 + length
    }
    return records
  }
}

/// What became of patterned frames: the line that `sink` and `check` print.
struct Tally: Equatable, CustomStringConvertible {
  var good = 0
  var bad = 0
  var duplicate = 0
  /// Behind a later one of its flow.
  var reordered = 0
  var missing = 0
  /// Missing before the furthest that came: what was lost and not merely not sent yet.
  var holes = 0
  /// Another VM's, or of other indices.
  var astray = 0
  /// Frames of other kinds.
  var other = 0
  /// Received by the guest, and lost on the way to the program that counts.
  var socketDrops = 0
  let description: String

  /// From all that the program said; its last line counts.
  init(_ output: String) throws {
    let lines = output.trimmed.split(separator: "\n")
    let line = lines.last ?? ""
    let words = line.split(separator: " ")
    let values = Dictionary(zip(words.dropFirst(), words.dropFirst(2)).map { (String($0), Int($1)) }) { first, _ in first }
    func value(_ name: String) throws -> Int {
      guard let value = values[name] ?? nil else { throw RigError("no '\(name)' in '\(line)'") }
      return value
    }
    good = try value("good")
    bad = try value("bad")
    duplicate = try value("duplicate")
    reordered = try value("reordered")
    missing = try value("missing")
    holes = try value("holes")
    astray = try value("astray")
    other = try value("other")
    socketDrops = try value("socket-drops")
    description = (lines.filter { $0.hasPrefix("first bad") } + [line]).joined(separator: "; ")
  }

  /// None damaged, doubled, out of order or for somebody else. Some may be missing.
  var isSound: Bool { isWhole && reordered == 0 }
  /// Every frame that came is one that was sent, once; in any order.
  var isWhole: Bool { bad == 0 && duplicate == 0 && astray == 0 }
  /// All from the first to the furthest, whole, once and in order.
  var isUnbroken: Bool { isSound && holes == 0 }
  /// All, whole, once and in order.
  func isWhole(_ frames: Int) -> Bool { isSound && good == frames && missing == 0 }
  /// All of its own, and so many of an address that is not.
  func isWholeBut(astray count: Int, _ frames: Int) -> Bool {
    var own = self
    own.astray = 0
    return astray == count && own.isWhole(frames)
  }
}

/// `sink`, running in a guest.
final class Sink {
  private let guest: Guest
  private let file: String

  /// Begins to count frames `first` ..< `first` + `frames`, each expected `laps` times; returns when it listens.
  init(in guest: Guest, first: Int = 0, frames: Int, laps: Int = 1) throws {
    self.guest = guest
    // For traffic that lasts, the driver's receiving is a thread, and `sink` goes before it.
    try guest.check("echo \(laps > 1 ? 1 : 0) > /sys/class/net/eth0/threaded")
    file = "/run/sink-\(UUID().uuidString.prefix(8))"
    try guest.check("sink eth0 \(first) \(frames) \(laps) > \(file) 2>&1 & echo $! > \(file).pid")
    try guest.check("until grep -q SINK-READY \(file); do usleep 20000; kill -0 $(cat \(file).pid) || { cat \(file); exit 1; }; done")
  }

  /// The same program, in a guest that moved to another machine.
  init(_ sink: Sink, movedTo guest: Guest) {
    self.guest = guest
    file = sink.file
  }

  convenience init(in guest: Guest, _ trace: Trace, laps: Int = 1) throws {
    try self.init(in: guest, first: trace.first, frames: trace.frames, laps: laps)
  }

  func soFar() throws -> Tally {
    let script = """
      said=$(grep -c SO-FAR \(file)); kill -USR1 $(cat \(file).pid)
      until [ $(grep -c SO-FAR \(file)) -gt $said ]; do usleep 20000; kill -0 $(cat \(file).pid) || break; done; cat \(file)
      """
    return try Tally(guest.check(script))
  }

  /// Waits until it has counted `count` frames, which a back-end says it has delivered; more may follow, and are in the tally.
  func settled(at count: Int) throws -> Tally {
    try eventually("\(count) frames are counted; \((try? soFar())?.description ?? "no count")") { try soFar().good >= count }
    return try settled()
  }

  /// A count that does not change any more. For a back-end that cannot say what it has delivered, because it was killed.
  ///
  /// Each look is a script that the guest runs after what interrupts it, on QEMU's loop behind the ring's signals: frames in
  /// the ring are counted by then, however slow the machine is.
  func settled() throws -> Tally {
    var last = try soFar()
    return try eventually("no more frames") {
      usleep(200_000)
      let now = try soFar()
      defer { last = now }
      return now == last ? now : nil
    }
  }

  /// Waits until all came; where that takes longer than `seconds`, counts until then.
  func end(within seconds: Int = Deadline.patience) throws -> Tally {
    let script = """
      for i in $(seq \(seconds * 20)); do kill -0 $(cat \(file).pid) 2> /dev/null || break; usleep 50000; done
      kill $(cat \(file).pid) 2> /dev/null
      while kill -0 $(cat \(file).pid) 2> /dev/null; do usleep 20000; done
      cat \(file)
      """
    return try Tally(guest.check(script, within: seconds + 60))
  }
}
