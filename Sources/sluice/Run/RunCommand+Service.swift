import Control

extension RunCommand {
  /// The one place that names the back-end itself.
  static func makeService(
    _ configuration: Configuration, log: @escaping @Sendable (LogEvent) -> Void
  ) throws(Failure) -> any BackendService {
    do { return try Service(configuration, log: log) } catch { throw Failure(status: .machine, message: error.description) }
  }
}
