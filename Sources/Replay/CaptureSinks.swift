internal import Capture
internal import Glibc
internal import Linux
internal import Simulation

/// The files that get what VMs received.
final class CaptureSinks {
  private var sinks: [CaptureFile] = []
  private(set) var byMachine: [Int: any FrameSink] = [:]

  init(_ options: ReplayOptions, vms: [ReplayOptions.VM]) throws(ReplayError) {
    var taken: Set<Int> = []
    for capture in options.captures {
      for (index, vm) in vms.enumerated() where capture.vm.isEmpty || vm.name == capture.vm {
        guard taken.insert(index).inserted else {
          throw .usage("--write \(capture.path): what VM \(vm.name) receives is written to another file already")
        }
      }
    }
    for capture in options.captures {
      let file = try CaptureFile(path: capture.path, isDeterministic: options.isDeterministic)
      sinks.append(file)
      for (index, vm) in vms.enumerated() where capture.vm.isEmpty || vm.name == capture.vm {
        byMachine[index] = file
      }
    }
  }

  /// Says what could not be written.
  func close() throws(ReplayError) { for sink in sinks { try sink.close() } }
}

/// One such file. Written on the guests' thread, closed when that has ended.
final class CaptureFile: FrameSink {
  private let path: String
  private var writer: CaptureWriter?
  private var failure: CaptureError?
  /// Simulated runs count frames instead of time: nothing of the machine's clock enters their files.
  private let isDeterministic: Bool
  private var count: UInt64 = 0

  init(path: String, isDeterministic: Bool) throws(ReplayError) {
    self.path = path
    self.isDeterministic = isDeterministic
    do { writer = try CaptureWriter(path: path) } catch { throw .machine("--write: \(error)") }
  }

  func receive(queue: Int, bytes: UnsafeRawBufferPointer, flags: FrameFlags) {
    guard failure == nil, writer != nil else { return }
    count += 1
    do throws(CaptureError) {
      try unsafe writer!.append(bytes: bytes, timestamp: isDeterministic ? count * 1000 : Self.wallClock())
    } catch { failure = error }
  }

  private static func wallClock() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  func close() throws(ReplayError) {
    if let failure { throw .machine("--write: \(failure)") }
    guard let writer = writer.take() else { return }
    do { try writer.close() } catch { throw .machine("--write: \(error)") }
  }
}
