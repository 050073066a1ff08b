// A virtual machine: QEMU, with one virtio-net device that a vhost-user back-end serves.

import Foundation

/// Which Linux a guest runs.
enum Kernel: String, Sendable, CaseIterable, CustomStringConvertible {
  case bookworm = "6.1"
  case backports = "6.12"
  /// The backports' one for every kind of machine: it can poison memory that is freed.
  case generic = "6.12-generic"
  /// Ours, with everything built in; it has what Debian's have not.
  case iommufd = "iommufd"

  var image: String { Rig.folder + "/kernel-\(rawValue)/vmlinuz" }
  /// Of modules it has none, and needs no other programs.
  var initrd: String { self == .iommufd ? Kernel.backports.initrd : Rig.folder + "/kernel-\(rawValue)/initrd" }
  var description: String { self == .iommufd ? "Linux with iommufd" : "Linux " + rawValue }
}

/// Which QEMU.
enum Emulator: Sendable, Hashable {
  /// The machine's own: 7.2 on Debian 12.
  case machine
  /// The backports' one, prepared in the rig.
  case backports

  var program: String { self == .machine ? "qemu-system-x86_64" : Rig.program("qemu") }
  /// Major and minor, times 100 and 1; nil where it is not there.
  var version: Int? { self == .machine ? Self.machineVersion : Self.backportsVersion }

  private static let machineVersion = ask("qemu-system-x86_64")
  private static let backportsVersion = Rig.exists(Rig.folder + "/qemu/complete") ? ask(Rig.program("qemu")) : nil
  private static func ask(_ program: String) -> Int? {
    guard let outcome = try? Shell.run([program, "--version"]), outcome.status == 0 else { return nil }
    let words = outcome.output.split(separator: " ")
    guard let place = words.firstIndex(of: "version"), place + 1 < words.count else { return nil }
    let numbers = words[place + 1].split(separator: ".").compactMap { Int($0) }
    return numbers.count > 1 ? numbers[0] * 100 + numbers[1] : nil
  }
}

struct MachineOptions: Sendable {
  enum Memory: Sendable, Hashable {
    case memfd
    /// 2 MiB pages.
    case hugetlb
  }
  enum Link: Sendable, Hashable {
    /// The back-end listens; QEMU connects, and again every second where the connection ends.
    case connects
    /// QEMU listens, and the back-end connects.
    case listens
  }

  var kernel = Kernel.bookworm
  var emulator = Emulator.machine
  var socket: String
  var link = Link.connects
  var mac = "52:54:00:12:34:56"
  var pairs = 1
  var isPacked = false
  var memory = Memory.memfd
  var megabytes = 256
  /// The most memory it may grow to by hot-plugging, in MiB.
  var mostMegabytes: Int?
  var processors = 1
  /// Waits for a migration here instead of booting.
  var incoming: String?
  var startsPaused = false
  /// Further words of the kernel's command line.
  var append = ""
  var more: [String] = []

  init(socket: String) { self.socket = socket }
}

extension MachineOptions {
  /// Whether interrupts are MSI-X. QEMU 7.2 crashes under software emulation when a vhost device has it.
  var hasMSIX: Bool { (emulator.version ?? 0) >= 800 }

  func arguments(folder: String) -> [String] {
    var machine = ["-M", "q35,memory-backend=m0", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "\(max(processors, pairs))"]
    machine += ["-nodefaults", "-no-user-config", "-display", "none", "-m"]
    machine.append(mostMegabytes.map { "size=\(megabytes)M,slots=16,maxmem=\($0)M" } ?? "\(megabytes)M")
    let backing = memory == .hugetlb ? ",hugetlb=on,hugetlbsize=2M" : ""
    machine += ["-object", "memory-backend-memfd,id=m0,share=on,size=\(megabytes)M\(backing)"]
    machine += ["-serial", "file:\(folder)/console.log", "-serial", "unix:\(folder)/agent,server=on,wait=off"]
    machine += ["-qmp", "unix:\(folder)/qmp,server=on,wait=off"]
    // no_timer_check: a busy machine must not make the guest doubt its timer. New memory is the kernel's to give back.
    machine += ["-kernel", kernel.image, "-initrd", kernel.initrd]
    machine += ["-append", "console=ttyS0 quiet panic=-1 no_timer_check memhp_default_state=online_movable \(append)"]
    // From 9.2 on in milliseconds.
    let again = (emulator.version ?? 0) >= 902 ? "reconnect-ms=1000" : "reconnect=1"
    let ending = link == .connects ? again : "server=on,wait=off"
    machine += ["-chardev", "socket,id=c0,path=\(socket),\(ending)", "-netdev", "vhost-user,id=n0,chardev=c0,queues=\(pairs)"]
    var device = "virtio-net-pci,id=net0,netdev=n0,addr=4,mac=\(mac),mrg_rxbuf=on,romfile="
    if isPacked { device += ",packed=on" }
    if pairs > 1 { device += ",mq=on" }
    device += hasMSIX ? ",vectors=\(2 * pairs + 2)" : ",vectors=0"
    machine += ["-device", device]
    if let incoming { machine += ["-incoming", incoming] }
    if startsPaused { machine.append("-S") }
    return machine + more
  }
}

final class Machine {
  let options: MachineOptions
  let process: Subprocess
  let qmp: QMP
  let guest: Guest
  let folder: String

  /// Starts QEMU. Its sockets and logs are in `folder`, which is this machine's alone.
  init(_ options: MachineOptions, folder: String) throws {
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    self.options = options
    self.folder = folder
    process = try Subprocess("qemu", [options.emulator.program] + options.arguments(folder: folder), folder: folder)
    do {
      qmp = try QMP(folder + "/qmp")
      guest = Guest(try Channel("the guest's agent", to: folder + "/agent"))
    } catch {
      process.kill()
      throw RigError("\(error)\nQEMU: \(process.log)")
    }
  }

  /// What the guest's kernel and /init said.
  var console: String { (try? String(decoding: Data(contentsOf: URL(fileURLWithPath: folder + "/console.log")), as: UTF8.self)) ?? "" }

  /// Waits until the guest can be told what to do: after the start, and after each reset.
  func isUp(within seconds: Int = Deadline.patience) throws {
    do { try guest.isUp(within: seconds) } catch { throw RigError("\(error)\nQEMU: \(process.log)") }
  }

  func kill() { process.kill() }
}
