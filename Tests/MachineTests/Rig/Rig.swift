// What the tests find on this machine: `Tests/Rig/prepare.sh` made it, or says why not.

import Foundation
import Testing

enum Rig {
  static let package = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent()
  private static let environment = ProcessInfo.processInfo.environment

  /// Where prepared things are. What can be built without the network is brought up to date at the first look.
  static let folder: String = {
    let folder = environment["SLUICE_RIG"] ?? package.path + "/.build/rig"
    let prepare = Process()
    prepare.executableURL = package.appendingPathComponent("Tests/Rig/prepare.sh")
    prepare.arguments = ["--offline"]
    prepare.standardError = FileHandle.nullDevice
    try? prepare.run()
    prepare.waitUntilExit()
    return folder
  }()

  /// Whether the issue's full counts are asked for, and not those of a test run between two commits.
  static let isFull = environment["SLUICE_RIG_FULL"] == "1"
  /// How often something is done: the first figure, or the second where `SLUICE_RIG_FULL=1`; `SLUICE_RIG_ROUNDS` overrules both.
  static func rounds(_ quick: Int, full: Int) -> Int {
    environment["SLUICE_RIG_ROUNDS"].flatMap { Int($0) } ?? (isFull ? full : quick)
  }
  /// Which back-end the tests judge: ours, or `testpmd`. A test that both fail has found a fault of the rig.
  static let backEnd = environment["SLUICE_RIG_BACKEND"] ?? "sluice"
  /// Keep the folder of each test, with all logs.
  static let keepsFolders = environment["SLUICE_RIG_KEEP"] == "1"

  static func program(_ name: String) -> String { folder + "/programs/" + name }

  /// Beside the tests' own executable, or what `SLUICE_PROGRAM` names: a release build, for the full counts.
  static let sluice: String = {
    if let named = environment["SLUICE_PROGRAM"] { return named }
    let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
    let beside = URL(fileURLWithPath: own).deletingLastPathComponent().appendingPathComponent("sluice").path
    return isExecutable(beside) ? beside : package.path + "/.build/debug/sluice"
  }()

  static func isExecutable(_ path: String) -> Bool { FileManager.default.isExecutableFile(atPath: path) }
  static func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: path) }
}

/// What a test needs besides the package, and why it may not be there.
enum Need: Hashable {
  case kernel(Kernel)
  case emulator(Emulator)
  case testpmd
  /// rust-vmm's vhost-user front-end library, and a program that uses it.
  case rustFrontEnd
  case libvirt
  /// That it boots in a container over the machine's own files.
  case systemd
  /// Namespaces, TAP devices, huge pages.
  case root
  case hugePages
  /// The back-end under test.
  case backEnd
  /// That this is ours: a test of what no other promises.
  case sluice

  /// Nil where it is there.
  var reasonMissing: String? {
    switch self {
    case .kernel(.iommufd):
      Rig.exists(Kernel.iommufd.image) ? nil : prepared("kernel-iommufd") ?? "Debian's kernels have no iommufd: Tests/Rig/prepare.sh --iommufd builds one, in four minutes"
    case .kernel(let kernel):
      Rig.exists(kernel.initrd) ? nil : prepared("kernel-" + kernel.rawValue) ?? prepared("programs") ?? prepared("initrd")
        ?? "\(kernel) is not prepared: run Tests/Rig/prepare.sh"
    case .emulator(let emulator):
      emulator.version != nil ? nil : emulator == .machine
        ? "there is no qemu-system-x86_64: run .ci/setup test" : prepared("qemu") ?? "no newer QEMU is prepared: run Tests/Rig/prepare.sh"
    case .testpmd:
      Rig.exists(Rig.folder + "/dpdk/complete") ? nil : prepared("dpdk") ?? "DPDK is not prepared: run Tests/Rig/prepare.sh"
    case .rustFrontEnd:
      Rig.isExecutable(Rig.program("rust-frontend")) ? nil : prepared("rust-frontend") ?? "rust-vmm's front-end is not prepared: run Tests/Rig/prepare.sh"
    case .libvirt:
      Rig.isExecutable("/usr/bin/virt-qemu-run") ? nil : "there is no virt-qemu-run (libvirt-daemon-driver-qemu): run .ci/setup test"
    case .systemd: Self.systemdReason
    case .root: geteuid() == 0 ? nil : "this needs root: network namespaces, TAP devices"
    case .hugePages: HugePages.reasonMissing
    case .backEnd:
      Rig.backEnd == "testpmd" ? Need.testpmd.reasonMissing : Self.hasRun ? nil : "this build has no `sluice run`"
    case .sluice:
      Rig.backEnd == "sluice" ? nil : "this is asked of `sluice run` only"
    }
  }

  private func prepared(_ name: String) -> String? {
    (try? String(contentsOfFile: Rig.folder + "/missing/" + name, encoding: .utf8)).map { "\(name): " + $0.trimmed }
  }

  private static let systemdReason: String? = {
    guard Rig.isExecutable("/usr/bin/systemd-nspawn"), Rig.isExecutable("/lib/systemd/systemd") else {
      return "there is no systemd-nspawn (systemd-container): run .ci/setup test"
    }
    let libraries = (try? Shell.run(["ldd", Rig.sluice]))?.output ?? ""
    if libraries.contains(" => /root/") || libraries.contains(" => /home/") {
      return "Swift's libraries lie in a home directory, which a service does not see"
    }
    let probe = try? Shell.run([Rig.package.path + "/Tests/Rig/systemd.sh", "--probe"])
    return probe?.status == 0 ? nil : "no container over this machine's files: \(probe?.output.trimmed ?? "")"
  }()

  private static let hasRun = (try? Shell.run([Rig.sluice, "run", "--help"]))?.status == 0

  /// A guest of Debian 12's own kernel and QEMU.
  static let bookwormGuest: [Need] = [.kernel(.bookworm), .emulator(.machine)]
  /// A guest of the backports' kernel and QEMU.
  static let backportsGuest: [Need] = [.kernel(.backports), .emulator(.backports)]
  /// A guest whose kernel can poison memory that it frees.
  static let genericGuest: [Need] = [.kernel(.generic), .emulator(.backports)]
}

extension Trait where Self == ConditionTrait {
  /// Skips a test, saying why, where something that it needs is not there.
  static func needs(_ needs: [Need]) -> Self {
    let reasons = needs.compactMap(\.reasonMissing)
    return .enabled(if: reasons.isEmpty, "\(reasons.joined(separator: "; "))")
  }
}

extension String {
  var trimmed: String { trimmingCharacters(in: .whitespacesAndNewlines) }
}

/// Something went otherwise than a test needs, in words.
struct RigError: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}
