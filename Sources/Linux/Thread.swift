internal import CLinux
internal import Glibc

/// A thread of the machine with one owner, who joins it.
@safe public struct Thread: ~Copyable {
  private let handle: pthread_t

  private final class Start {
    let name: String
    let processor: Int?
    let body: @Sendable () -> Void
    init(name: String, processor: Int?, body: @escaping @Sendable () -> Void) {
      self.name = name
      self.processor = processor
      self.body = body
    }
  }

  /// Starts `body` on a thread of its own.
  ///
  /// - Parameters:
  ///   - name: shown by `top -H`; the kernel keeps 15 bytes.
  ///   - processor: the only processor it may run on, or nil for any. A refusal of the kernel is not an
  ///     error: the thread then runs where it may.
  public init(name: String, processor: Int? = nil, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
    let start = unsafe Unmanaged.passRetained(Start(name: name, processor: processor, body: body))
    var handle = pthread_t()
    let code = unsafe pthread_create(
      &handle, nil,
      { argument in
        let start = unsafe Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
        unsafe _ = pthread_setname_np(pthread_self(), String(start.name.prefix(15)))
        if let processor = start.processor { _ = sl_pin_to_processor(Int32(processor)) }
        start.body()
        return nil
      }, start.toOpaque())
    guard code == 0 else {
      unsafe start.release()
      throw SystemError(.pthreadCreate, code: code)
    }
    self.handle = handle
  }

  /// Waits until it has ended.
  public consuming func join() {
    pthread_join(handle, nil)
  }

  /// Pins the calling thread to one processor; false if the kernel refuses.
  @discardableResult public static func pin(to processor: Int) -> Bool {
    sl_pin_to_processor(Int32(processor)) == 0
  }

  /// Lets the calling thread run wherever the process may.
  public static func unpin() { sl_unpin() }

  /// The processors that this process may run on, in order.
  public static let processors: [Int] = (0..<1024).filter { sl_may_run_on(Int32($0)) != 0 }
}
