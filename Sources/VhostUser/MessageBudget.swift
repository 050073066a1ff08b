/// How many messages that cost others something a VM's front-end may send: a token bucket, in nanoseconds of time that the
/// caller gives (GCRA). One that is empty is no error: the socket is not read until tokens come back, so that the front-end
/// waits as it would for any back-end that is busy.
///
/// A VM's, whatever connections come: who connects again finds what was left.
public struct MessageBudget: Hashable, Sendable {
  /// Tokens that are there at the start, and at most. QEMU starts a ring with some 15 (8 queue pairs: 240), and tells of up to
  /// 509 regions of memory, each once a queue pair.
  public static let burst: UInt64 = 2048
  /// Tokens that come back in a second: 250 starts or stops of rings. Lawful front-ends need a few of these at a guest's
  /// reset, a migration, when memory is plugged.
  public static let perSecond: UInt64 = 1000
  /// So many nanoseconds of a processor cost one token more, whatever message it was for: in the long run a VM has a tenth of the
  /// control thread.
  public static let nanosecondsPerToken: UInt64 = 100_000 * slowness
  #if THREAD_SANITIZER  // A build that watches every access takes some twenty times as long.
    private static let slowness: UInt64 = 20
  #else
    private static let slowness: UInt64 = 1
  #endif
  /// The most that one message costs: one that takes long for reasons of our own (memory that is pinned for a card) must not
  /// hold its VM up for more than half a second.
  public static let mostPerMessage: UInt64 = 512
  /// Tokens that must be there before an empty one is used again: not one message at a time.
  public static let restart: UInt64 = 32

  static let interval = 1_000_000_000 / perSecond
  /// When the bucket will be full again; in the past if it is.
  private var fullAt: UInt64 = 0
  /// The bucket was emptied, and has fewer than `restart` tokens.
  private var isEmptied = false

  public init() {}

  /// What a message costs.
  ///
  /// - Parameters:
  ///   - tokens: those of its kind; see `Request.tokens`.
  ///   - nanoseconds: the processor's time that it took.
  public static func cost(tokens: UInt64, nanoseconds: UInt64) -> UInt64 {
    min(tokens + nanoseconds / nanosecondsPerToken, mostPerMessage)
  }

  /// Takes tokens out. It may have fewer than none after that, by `mostPerMessage`: no pause is longer than that takes, however
  /// fast front-ends come and go.
  public mutating func take(_ tokens: UInt64, at now: UInt64) {
    guard tokens > 0 else { return }
    fullAt = min(max(fullAt, now) &+ tokens &* Self.interval, now &+ (Self.burst + Self.mostPerMessage) * Self.interval)
    if missing(at: now) >= Self.burst * Self.interval { isEmptied = true }
  }

  /// Returns when messages may be taken again, in the caller's time; nil: now.
  public mutating func pause(at now: UInt64) -> UInt64? {
    guard isEmptied else { return nil }
    let enough = (Self.burst - Self.restart) * Self.interval
    if missing(at: now) <= enough {
      isEmptied = false
      return nil
    }
    return fullAt &- enough
  }

  /// Nanoseconds until the bucket is full.
  private func missing(at now: UInt64) -> UInt64 { fullAt > now ? fullAt - now : 0 }
}

extension Request {
  /// Tokens that a message of this kind costs: one if the worker, the card or a mapping is needed for it, for others wait
  /// meanwhile; four if a queue of the card may be started or stopped. The rest cost only the time that they take.
  var tokens: UInt64 {
    switch self {
    case .getVringBase, .setVringKick, .setVringEnable, .resetOwner, .resetDevice: 4
    case .setMemTable, .addMemReg, .remMemReg, .setLogBase, .getInflightFd, .setInflightFd, .setFeatures,
      .setVringNum, .setVringAddr, .setVringBase, .setVringCall: 1
    default: 0
    }
  }
}
