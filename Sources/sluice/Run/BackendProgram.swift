/// What a vhost-user back-end program answers of itself. vhost-user, "Backend program conventions", and QEMU's
/// vhost-user.json.
enum BackendProgram {
  /// VHostUserBackendCapabilities: for a network card the type is all there is.
  static let capabilities = #"{"type":"net"}"#

  /// Asked for its capabilities a program ignores every other option, even one that it does not know.
  static func answer(_ arguments: [String]) -> String? {
    arguments.first == "run" && arguments.prefix { $0 != "--" }.contains("--print-capabilities") ? capabilities + "\n" : nil
  }
}
