internal import Capture
internal import Glibc
internal import Linux
internal import Simulation

/// The frames of a replay, one after the other: all files, then all of them again, with times that only go forward.
///
/// In memory, or read as they are needed: then a file may be larger than the machine's memory.
///
/// `@safe`: the current frame lies in its own buffer, or in a preloaded trace that it holds.
@safe struct TraceSource: ~Copyable {
  /// Traces of this many bytes together are read into memory unless told otherwise.
  static let preloadLimit: Int64 = 256 << 20

  private let files: [String]
  private let filter: String?
  private let allowsTruncated: Bool
  private let loopLimit: Int
  /// Traces in memory; nil: they are read again in every loop.
  ///
  /// A variable with a value from the start: Swift 6.3.1 releases what is not there yet when this initializer assigns a
  /// constant.
  private var preloaded: PreloadedTrace?
  private var index = 0
  private var isFinished = false

  // The file being read.
  private var open: OpenCapture?
  private var fileIndex = 0
  private let buffer = FrameBuffer()
  private var fileStart: UInt64 = 0
  private var isFirstOfFile = true
  private var previous: UInt64 = 0
  private var previousGap: UInt64 = 0
  private let totalBytes: Int64?
  private var earlierBytes: Int64 = 0
  /// How far the file being read is read, looked at now and then.
  private var fileOffset: Int64 = 0

  /// The frame that is next on the wire, if `hasCurrent`.
  private(set) var current = unsafe TraceFrame(wire: WireFrame(bytes: UnsafeRawPointer(bitPattern: 64)!, count: 0), time: 0)
  private(set) var hasCurrent = false
  private(set) var read: UInt64 = 0
  private(set) var skipped: UInt64 = 0
  private(set) var completedLoops = 0
  private(set) var warnings: [String: UInt64] = [:]
  /// What ended the reading before its time.
  private(set) var failure: CaptureError?

  private var loopOffset: UInt64 = 0
  private var lastTime: UInt64 = 0
  private var skippedPerLoop: UInt64 = 0

  var isPreloaded: Bool { preloaded != nil }

  /// Opens the traces, and reads the first frame or all of them: what cannot be read at all is known at once.
  static func open(_ options: ReplayOptions) throws(ReplayError) -> TraceSource {
    if options.limit.loops != 1 && options.limit.loops != .max, let pipe = options.files.first(where: isPipe) {
      throw .usage(
        "--loop \(options.limit.loops): \(pipe == "-" ? "standard input" : pipe) can be read only once; give a file, or --loop 1")
    }
    var source = TraceSource(
      files: options.files, filter: options.filter, allowsTruncated: options.allowsTruncated, loops: options.limit.loops,
      preload: options.preload)
    if let trace = source.preloaded { try source.load(into: trace) } else { _ = try source.advance() }
    return source
  }

  private init(files: [String], filter: String?, allowsTruncated: Bool, loops: Int, preload: Bool?) {
    self.files = files
    self.filter = filter
    self.allowsTruncated = allowsTruncated
    let hasPipe = files.contains(where: Self.isPipe)
    loopLimit = hasPipe ? 1 : loops
    totalBytes = hasPipe ? nil : Self.sizes(files)
    let wantsPreload = preload ?? (!hasPipe && (totalBytes ?? .max) <= Self.preloadLimit)
    preloaded = wantsPreload ? PreloadedTrace() : nil
  }

  /// What can be read only once: standard input, a named pipe, a device.
  static func isPipe(_ file: String) -> Bool {
    var status = stat()
    if file == "-" { return true }
    guard unsafe stat(file, &status) == 0 else { return false }
    return ![S_IFREG, S_IFDIR].contains(status.st_mode & S_IFMT)
  }

  private static func sizes(_ files: [String]) -> Int64? {
    var total: Int64 = 0
    for file in files {
      var status = stat()
      guard unsafe stat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
      total += Int64(status.st_size)
    }
    return total
  }

  /// Reads everything once. What is wrong with a file is kept until the frames before it were replayed.
  private mutating func load(into trace: PreloadedTrace) throws(ReplayError) {
    while readNext() {
      unsafe trace.append(UnsafeRawBufferPointer(start: current.wire.bytes, count: current.wire.count), time: current.time)
    }
    skippedPerLoop = skipped
    (skipped, read) = (0, 0)
    if trace.count == 0 { try refuseEmpty(skipped: skippedPerLoop) }
    hasCurrent = false
  }

  private func refuseEmpty(skipped: UInt64) throws(ReplayError) {
    if case .badFilter(let expression, let reason) = failure { throw .usage("--filter \(expression): \(reason)") }
    if let failure { throw .unreadable("\(failure)") }
    let names = files.joined(separator: ", ")
    if skipped > 0 {
      throw .nothingSent(
        "\(names): nothing to send: the end of all \(skipped) frames was not captured; --allow-truncated replays them as they are")
    }
    if let filter { throw .nothingSent("\(names): nothing to send: no frame matches the filter '\(filter)'") }
    throw .nothingSent("\(names): nothing to send: no frame in it")
  }

  /// The frame so many behind the next one, if it lies in memory and in this loop.
  @inline(__always) func following(_ distance: Int) -> WireFrame? {
    guard let preloaded, index + distance < preloaded.count else { return nil }
    return unsafe preloaded.frame(index + distance)
  }

  /// The frame was put on the wire.
  mutating func consume() { hasCurrent = false }

  /// Makes the next frame current; false when there are no more, or one of the files could not be read further.
  mutating func advance() throws(ReplayError) -> Bool {
    if hasCurrent { return true }
    if isFinished { return false }
    guard let preloaded else { return try advanceStream() }
    if index == preloaded.count {
      read += skippedPerLoop
      skipped += skippedPerLoop
      completedLoops += 1
      guard completedLoops < loopLimit, failure == nil else {
        isFinished = true
        return false
      }
      nextLoop()
      index = 0
    }
    unsafe current = TraceFrame(wire: preloaded.frame(index), time: Self.sum(loopOffset, preloaded.time(index)))
    lastTime = unsafe current.time
    index += 1
    read += 1
    hasCurrent = true
    return true
  }

  /// Puts the next frames into `burst`, at most `limit`: those that lie in memory one after the other. Answers how many; 0
  /// at the end, as `advance` says it.
  mutating func peek(_ limit: Int, into burst: WireBurst) throws(ReplayError) -> Int {
    guard try advance() else { return 0 }
    guard let preloaded else {
      unsafe burst[0] = current.wire
      return 1
    }
    let first = index - 1
    let count = min(limit, preloaded.count - first)
    preloaded.copy(first..<first + count, into: burst)
    return count
  }

  /// The first frames of the last `peek` were put on the wire. Answers their bytes. Precondition: there is one.
  mutating func consume(_ count: Int) -> UInt64 {
    hasCurrent = false
    guard let preloaded else { return UInt64(unsafe current.wire.count) }
    let first = index - 1
    index += count - 1
    read += UInt64(count - 1)
    lastTime = Self.sum(loopOffset, preloaded.time(index - 1))
    return preloaded.byteCount(of: first..<first + count)
  }

  private mutating func advanceStream() throws(ReplayError) -> Bool {
    while true {
      if readNext() {
        unsafe current.time = Self.sum(loopOffset, current.time)
        lastTime = unsafe current.time
        hasCurrent = true
        return true
      }
      if read == skipped && completedLoops == 0 { try refuseEmpty(skipped: skipped) }
      completedLoops += 1
      guard completedLoops < loopLimit, failure == nil else {
        isFinished = true
        return false
      }
      nextLoop()
      (fileIndex, fileStart, previous, previousGap, earlierBytes) = (0, 0, 0, 0, 0)
    }
  }

  /// The next loop begins one ordinary gap after the end of this one.
  private mutating func nextLoop() {
    let frames = preloaded.map { UInt64($0.count) } ?? max(read / UInt64(completedLoops), 1)
    let span = lastTime - loopOffset
    loopOffset = Self.sum(lastTime, frames > 1 ? span / (frames - 1) : 0)
  }

  /// Of two times; after some centuries it stands still, for it never goes back.
  private static func sum(_ time: UInt64, _ span: UInt64) -> UInt64 {
    let (sum, overflows) = time.addingReportingOverflow(span)
    return overflows ? .max : sum
  }

  /// Reads the next frame of the files into the buffer; false at their end or at an error, which is kept.
  private mutating func readNext() -> Bool {
    while true {
      if open == nil {
        guard fileIndex < files.count, failure == nil else { return false }
        do throws(CaptureError) {
          open = OpenCapture(try CaptureReader(path: files[fileIndex], filter: filter))
        } catch {
          failure = error
          return false
        }
        fileIndex += 1
        isFirstOfFile = true
      }
      do throws(CaptureError) {
        guard let frame = try unsafe open!.reader.next(into: buffer.bytes) else {
          closeReader()
          continue
        }
        read += 1
        if read & 1023 == 0 { fileOffset = open!.reader.byteOffset }
        if frame.isTruncated && !allowsTruncated {
          skipped += 1
          continue
        }
        unsafe current = TraceFrame(
          wire: WireFrame(bytes: UnsafeRawPointer(buffer.bytes.baseAddress!), count: frame.capturedByteCount),
          time: time(frame.timestamp))
        return true
      } catch {
        failure = error
        closeReader()
        return false
      }
    }
  }

  /// Times of a file count from its first frame; a file begins one gap after the end of the one before. A frame
  /// that is older than the one before it has that one's time.
  private mutating func time(_ stamp: UInt64) -> UInt64 {
    if isFirstOfFile {
      fileStart = stamp &- (previous &+ previousGap)
      isFirstOfFile = false
    }
    let time = stamp &- fileStart
    // A stamp before the file's first one wraps; so does one that is absurd.
    let forward = time < previous || time > UInt64.max / 2 ? previous : time
    previousGap = forward - previous
    previous = forward
    return forward
  }

  private mutating func closeReader() {
    guard let finished = open else { return }
    for (name, count) in Self.names(finished.reader.warnings) where completedLoops == 0 {
      warnings[name, default: 0] += count
    }
    earlierBytes += finished.reader.fileByteCount ?? 0
    open = nil
    fileOffset = 0
  }

  private static func names(_ warnings: CaptureWarnings) -> [(String, UInt64)] {
    CaptureWarning.allCases.compactMap { kind in
      let count = warnings[kind]
      return count > 0 ? (kind.description, UInt64(count)) : nil
    }
  }

  /// How much of all loops is done, 0 to 1; nil if that is not known.
  var fraction: Double? {
    guard loopLimit != .max else { return nil }
    let one: Double
    if let preloaded {
      one = Double(index) / Double(preloaded.count)
    } else {
      guard let totalBytes, totalBytes > 0 else { return nil }
      one = Double(earlierBytes + fileOffset) / Double(totalBytes)
    }
    return min(1, (Double(completedLoops) + (completedLoops == loopLimit ? 0 : one)) / Double(loopLimit))
  }

  /// Bytes of frames of one loop, as far as known: to choose whether to compare.
  var expectedBytes: Int64? {
    guard loopLimit != .max else { return nil }
    let one = preloaded.map { Int64($0.byteCount) } ?? totalBytes
    return one.map { $0.multipliedReportingOverflow(by: Int64(loopLimit)) }.flatMap { $0.overflow ? nil : $0.partialValue }
  }
}

/// The file being read. A class, because an optional of what cannot be copied cannot be used in place.
private final class OpenCapture {
  var reader: CaptureReader
  init(_ reader: consuming CaptureReader) { self.reader = reader }
}

/// Room for one frame of any length.
@safe private struct FrameBuffer: ~Copyable {
  let bytes: UnsafeMutableRawBufferPointer
  init() { unsafe bytes = .allocate(byteCount: CaptureReader.largestFrame, alignment: 64) }
  deinit { unsafe bytes.deallocate() }
}
