/// What is known of a frame on the wire from before, kept by whoever has the frame, for it may come again.
///
/// Good for one card at a time, and touched by the one thread that this card is on.
public struct FrameNotes: Sendable {
  let headers: FrameHeaders
  var decision = FilterDecision()

  public init(_ headers: FrameHeaders) { self.headers = headers }
}

/// What a card's filters have decided of a frame that is for one pool: theirs is a function of the frame and of what was
/// written to registers, and so it stands until the next write.
struct FilterDecision {
  /// Of the card, when it was made; 0: never.
  var stamp: UInt64 = 0
  var steering = Steering(queue: 0, word: 0)
  /// Of the address step, as `FilterCounters` counts it.
  var place = 0
  /// Of its descriptor, without its length.
  var status: UInt64 = 0
}
