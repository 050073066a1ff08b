import Control

extension RunCommand {
  /// The one place that names the back-end itself.
  static func makeService(
    _ configuration: Configuration, log: @escaping @Sendable (LogEvent) -> Void
  ) throws(Failure) -> any BackendService {
    throw Failure(
      status: .unavailable,
      message: "sluice \(Sluice.version) cannot run a back-end yet: what moves frames is not built in; --check looks at a configuration")
  }
}
