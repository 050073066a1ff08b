internal import GuestMemory
internal import Linux
internal import Virtio

// The guest's memory, and the log of what was written to it. vhost-user, "Memory access" and "Migration".
extension Backend {
  /// Puts another table in place of the present one.
  ///
  /// If every region stays, rings go on running. If one goes, every ring stops first; when this returns nothing of
  /// ours, and no card, reaches what went. Rings whose addresses are still in memory go on, the others stay stopped and
  /// their error descriptors are raised.
  func adopt(_ next: MemoryTable) throws(MessageError) {
    let staysWhole = memory.isContained(in: next)
    if staysWhole && next.isContained(in: memory) {
      memory = next
      return
    }
    let nextMap = try next.map()
    let stopped = staysWhole ? [] : rings.indices.filter { rings[$0].isRunning }
    stop(stopped, forgettingKick: false)
    do { try device.setMemory(nextMap) } catch {
      // What is to go must go, also if there is nothing to put in its place. What cannot be taken away is the same memory again, if any.
      if !staysWhole { _ = forgetMemory() }
      for n in stopped { refuse(n, .device(error)) }
      throw .device(error)
    }
    (memory, map) = (next, nextMap)
    reportMemory()
    startRings()
    if nextMap == nil { for n in stopped { refuse(n, .device(RingRefusal("its memory was taken away"))) } }
  }

  /// Takes all memory away from the device. Answers why some of it may still be reached: then the front-end must not be told that it
  /// is gone.
  func forgetMemory() -> RingRefusal? {
    guard !memory.isEmpty else { return nil }
    var problem: RingRefusal?
    do throws(RingRefusal) { try device.setMemory(nil) } catch { problem = error }
    (memory, map) = (MemoryTable(), nil)
    reportMemory()
    return problem
  }

  private func reportMemory() {
    report(
      .memory(
        regionCount: memory.entries.count, byteCount: memory.byteCount,
        shrinkable: memory.entries.count(where: \.isShrinkable)))
  }

  /// Whether a file that the front-end gave us was made shorter under us. What is touched there reads as zeros.
  var isTruncated: Bool {
    memory.entries.contains(where: \.region.isTruncated) || log?.isTruncated == true || inflight?.isTruncated == true
  }

  // MARK: The log

  /// SET_LOG_BASE. Its answer has a body of its own, which is the request's.
  func setLogBase(_ place: LogDescription, _ file: consuming OwnedDescriptor) throws(MessageError) -> [UInt8] {
    let status = try file.checkedMemory(.setLogBase)
    let bad = MessageError.badLog(byteCount: place.byteCount, offset: place.offset, fileBytes: status.byteCount)
    guard let byteCount = Int(exactly: place.byteCount), let offset = Int(exactly: place.offset), byteCount > 0,
      // No guest has more pages than bits in this; and the sums below do not overflow.
      byteCount <= 1 << 48, offset <= status.byteCount, byteCount <= status.byteCount - offset
    else { throw bad }
    let needed = memory.logByteCount
    guard place.byteCount >= needed else { throw .logTooSmall(byteCount: place.byteCount, needed: needed) }
    let before = offset % status.pageByteCount
    do {
      let length = (before + byteCount + status.pageByteCount - 1) / status.pageByteCount * status.pageByteCount
      let page = status.pageByteCount
      let mapping = try Mapping(ofForeign: file, byteCount: length, offset: offset - before, alignment: page, page: page)
      log = DirtyLog(mapping: mapping, offset: before, byteCount: byteCount)
    } catch { throw .system(error) }
    giveLog()
    var payload: [UInt8] = []
    payload.put(place.byteCount)
    payload.put(place.offset)
    return payload
  }

  /// The device marks pages while LOG_ALL is acknowledged and there is a log.
  func giveLog() {
    let wanted = features?.contains(.logAll) == true ? log : nil
    if wanted == nil && !isLogging { return }
    device.setLog(wanted)
    if (wanted != nil) != isLogging { report(.logging(wanted != nil)) }
    isLogging = wanted != nil
  }

  func forgetLog() {
    if isLogging {
      device.setLog(nil)
      isLogging = false
      report(.logging(false))
    }
    log = nil
  }
}
