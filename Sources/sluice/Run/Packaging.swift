/// Files for the machine that a back-end is installed on. They lie in `Packaging`, and the program has them in it: one
/// file is all there is to install.
enum Packaging {
  static var unit: String { text(PackageResources.sluice_service) }
  static var example: String { text(PackageResources.sluice_yaml) }
  static var description: String { text(PackageResources.sluice_vhost_user_json) }

  /// What was asked to be printed.
  static func text(for command: RunCommand) -> String? {
    if command.file.printUnit { return unit }
    if command.file.printConfig { return example }
    return command.program.printDescription ? description : nil
  }

  private static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
}
