/// What a device can do wrong towards its driver when it delivers frames. A closed list.
public enum Violation: Int, CaseIterable, Hashable, Sendable {
  /// used.idx says that more buffers were used than were ever available. The queue stops. 2.7.8.
  case usedIndexRanAhead
  /// A used element names a descriptor that the ring does not have. 2.7.8.
  case identifierOutOfRange
  /// A used element names a buffer that the device does not have: never given, or returned already. 2.7.8.
  case identifierNotOutstanding
  /// A buffer was used before one that was available earlier. 2.7.9; asked of our devices whether negotiated or not.
  case outOfOrder
  /// More bytes written than the buffer has. 2.7.8.2.
  case lengthPastBuffer
  /// Fewer bytes than the header has. 5.1.6.4.
  case lengthBelowHeader
  /// num_buffers is 0. 5.1.6.4.1.
  case noBuffers
  /// num_buffers is not 1, and VIRTIO_NET_F_MRG_RXBUF was not negotiated. 5.1.6.4.1.
  case mergedWithoutFeature
  /// num_buffers is more than what became visible together. 5.1.6.4.1.
  case buffersMissing
  /// A buffer that is not a frame's last was not filled to its end. 5.1.6.4.1.
  case bufferNotFull
  /// A frame longer than any network carries: 128 KiB.
  case frameTooLong
  /// A flag that may not be set: any but DATA_VALID, and that one without VIRTIO_NET_F_GUEST_CSUM. 5.1.6.4.1.
  case badFlags
  /// gso_type, gso_size or hdr_len is not 0. 5.1.6.4.1.
  case badSegmentation
  /// csum_start or csum_offset is not 0.
  case badChecksumFields
  /// A byte of a buffer behind those that the device says it wrote has changed.
  case writtenPastLength
  /// A buffer has changed after it was returned.
  case writtenAfterReturn
  /// A byte has changed that belongs to no buffer and no ring.
  case foreignWrite
  /// A descriptor, or an entry of the available ring, has changed: only the driver writes those. 2.7.5.1, 2.7.6.
  case ringOverwritten
}

/// What a guest found: how often each kind, and the first few in words.
public struct ViolationReport: Sendable, CustomStringConvertible {
  private var counts = [Int](repeating: 0, count: Violation.allCases.count)
  /// The first of them, in the order in which they were found.
  public private(set) var first: [String] = []
  static let wordedCount = 16

  public var total: Int { counts.reduce(0, +) }
  public var isEmpty: Bool { total == 0 }
  public func count(of violation: Violation) -> Int { counts[violation.rawValue] }

  mutating func record(_ violation: Violation, queue: Int, _ words: () -> String) {
    counts[violation.rawValue] += 1
    if first.count < Self.wordedCount { first.append("queue \(queue): \(violation): \(words())") }
  }

  public var description: String {
    if isEmpty { return "no violations" }
    let kinds = Violation.allCases.filter { count(of: $0) > 0 }.map { "\($0) \(count(of: $0))" }
    return kinds.joined(separator: ", ") + "\n" + first.joined(separator: "\n")
  }
}

/// A report that the queues of one guest share, and each queue's part of it. Only the guest's thread uses it.
final class ViolationLog {
  private(set) var report = ViolationReport()
  private let counts: PrivateTable<UInt64>

  init(queueCount: Int) { counts = PrivateTable(repeating: 0, count: queueCount) }

  func count(queue: Int) -> UInt64 { counts[queue] }

  func record(_ violation: Violation, queue: Int, _ words: () -> String) {
    counts[queue] += 1
    report.record(violation, queue: queue, words)
  }
}
