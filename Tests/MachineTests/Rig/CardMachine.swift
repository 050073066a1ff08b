// A virtual machine with a network card and an IOMMU of its own, both QEMU's, and Linux's vfio-pci above: what Sluice runs
// inside of.

import Foundation

final class CardMachine {
  /// How the card's addresses are translated.
  enum IOMMU: String, Sendable {
    case intel = "intel-iommu,intremap=on,caching-mode=on,aw-bits=48"
  }

  private static let physical = "0000:01:00.0"
  /// The function that Sluice has.
  private(set) var card = CardMachine.physical
  static let macs = ["52:54:00:12:34:56", "52:54:00:12:34:57"]

  let process: Subprocess
  let qmp: QMP
  let guest: Guest
  let wire: CardWire
  private let folder: String

  /// Starts QEMU, and gives the card to vfio-pci.
  ///
  /// - Parameter program: what is laid over the guest's files, `sluice` or another.
  /// - Parameter countsInstructions: a nanosecond of its clock is an instruction; it has one processor then.
  /// - Parameter hasFeeder: another card of the machine's, which its own kernel drives, is on the same cable: `eth0`.
  init(kernel: Kernel = .backports, program: String = Rig.sluice, hasFeeder: Bool = false, countsInstructions: Bool = false, folder: String) throws {
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    self.folder = folder
    let initrd = try Self.initrd(for: kernel, program, folder: folder)
    wire = try CardWire(folder: folder)
    var words = [Emulator.backports.program, "-M", "q35,kernel-irqchip=split", "-cpu", "max", "-m", "1536M"]
    words += countsInstructions ? ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"] : ["-accel", "tcg,thread=multi", "-smp", "2"]
    words += ["-nodefaults", "-no-user-config", "-display", "none"]
    words += ["-serial", "file:\(folder)/console.log", "-serial", "unix:\(folder)/agent,server=on,wait=off"]
    words += ["-qmp", "unix:\(folder)/qmp,server=on,wait=off", "-kernel", kernel.image, "-initrd", initrd]
    words += ["-append", "console=ttyS0 quiet panic=-1 no_timer_check intel_iommu=on iommu.strict=1 vfio_pci.enable_sriov=1"]
    words += ["-device", IOMMU.intel.rawValue]
    if hasFeeder {
      words += ["-netdev", "hubport,id=wire,hubid=0", "-netdev", "hubport,id=feeder,hubid=0", "-device", "virtio-net-pci,netdev=feeder,romfile="]
    } else {
      words += ["-netdev", wire.netdev]
    }
    words += ["-device", "pcie-root-port,id=slot1,slot=1"]
    words += ["-device", Self.device, "-d", "trace:\(Self.dropEvent)", "-D", folder + "/trace.log"]
    process = try Subprocess("qemu", words, folder: folder)
    let console = folder + "/console.log"
    do {
      qmp = try QMP(folder + "/qmp")
      guest = Guest(try Channel("the guest's agent", to: folder + "/agent"))
      try guest.isUp()
      if kernel != .iommufd { try guest.check("modprobe vfio_iommu_type1 && modprobe vfio-pci") }
      try bind()
    } catch {
      process.kill()
      throw RigError("\(error)\nQEMU: \(process.log)\n\((try? String(contentsOfFile: console, encoding: .utf8)) ?? "")")
    }
  }

  /// QEMU's 82576 drops a frame for a queue without a descriptor, and counts it in no register: neither in RQDPC nor in MPC,
  /// where a real one does. Only this event of its trace shows it.
  private static let dropEvent = "e1000e_rx_not_written_to_guest"
  /// How many frames the NIC has dropped because a queue had no descriptor.
  var droppedByNIC: Int {
    ((try? String(contentsOfFile: folder + "/trace.log", encoding: .utf8)) ?? "").split(separator: "\n").count { $0.hasPrefix(Self.dropEvent) }
  }

  private static let device = "igb,id=card,netdev=wire,bus=slot1,mac=\(macs[0])"

  /// The prepared one, and the program under test laid over it.
  private static func initrd(for kernel: Kernel, _ program: String, folder: String) throws -> String {
    let path = folder + "/initrd"
    try Shell.check([Rig.package.path + "/Tests/Rig/overlay.sh", program, folder + "/overlay"])
    // An archive begins at a multiple of four bytes.
    try Shell.check(["sh", "-c", #"cp "$0" "$2"; truncate -s %4 "$2"; cat "$1" >> "$2"; rm "$1""#, kernel.initrd, folder + "/overlay", path])
    return path
  }

  /// Gives the physical function back to the kernel's driver, and takes a virtual one of it.
  func takeVirtualFunction() throws {
    let place = "/sys/bus/pci/devices/\(Self.physical)"
    try guest.check("echo \(Self.physical) > \(place)/driver/unbind; echo > \(place)/driver_override; echo \(Self.physical) > /sys/bus/pci/drivers_probe")
    try guest.check("ip link set $(ls \(place)/net) up && echo 1 > \(place)/sriov_numvfs")
    card = try guest.check("basename $(readlink \(place)/virtfn0)")
    try bind()
  }

  func bind() throws {
    let place = "/sys/bus/pci/devices/\(card)"
    try guest.check("[ -e \(place)/driver ] && echo \(card) > \(place)/driver/unbind; echo vfio-pci > \(place)/driver_override && echo \(card) > /sys/bus/pci/drivers_probe && test -e \(place)/iommu_group")
  }

  var console: String { (try? String(decoding: Data(contentsOf: URL(fileURLWithPath: folder + "/console.log")), as: UTF8.self)) ?? "" }
  func kill() { process.kill() }

  // MARK: Sluice, inside

  /// Starts `sluice run` on the card, with a VM for each name: `a` has the first of `macs`, `b` the second.
  func start(_ vms: [String] = ["a"], more: String = "") throws {
    let options = vms.map { "--vm \($0),socket=\($0).sock,mac=\(Self.macs[$0 == "a" ? 0 : 1]),packed=off" }.joined(separator: " ")
    try guest.check("cd /run; rm -f *.sock; sluice run --nic vfio:\(card) \(options) --control control \(more) > sluice.log 2>&1 & echo $! > /run/sluice.pid")
    try guest.check("until grep -q ' ready ' /run/sluice.log; do usleep 20000; kill -0 $(cat /run/sluice.pid) || { cat /run/sluice.log; exit 1; }; done")
    try hasLink()
  }
  func hasLink(within seconds: Int = Deadline.patience) throws {
    try eventually("the card has a link: \((try? log()) ?? "")", within: seconds) { try nic()["link_up"] as? Bool == true }
  }

  /// Takes the card out as one does it with a lever: the kernel is asked, lets it go, and its power is cut.
  func unplug() throws {
    let mark = qmp.events.count
    try qmp.run("device_del", ["id": "card"])
    try qmp.event("DEVICE_DELETED card", after: mark)
  }
  func plug() throws {
    try qmp.run("device_add", ["driver": "igb", "id": "card", "netdev": "wire", "bus": "slot1", "mac": Self.macs[0]])
    try guest.check("until [ -e /sys/bus/pci/devices/\(card) ]; do usleep 20000; done")
    try bind()
  }
  /// A reset of the function alone, by whoever may: not by us.
  func reset() throws {
    let place = "/sys/bus/pci/devices/\(card)"
    try guest.check("echo flr > \(place)/reset_method && echo 1 > \(place)/reset")
  }

  /// An error on the bus, by what QEMU calls it.
  enum BusError: String {
    case badPacket = "-c slot1 0x40"
    case replayTimeout = "-c slot1 0x1000"
    case completionTimeout = "slot1 COMP_TIME"
    case malformedPacket = "slot1 MALF_TLP"
  }
  /// The port above the card finds an error. QEMU's 82576 finds none itself that it would tell: its Device Control register has
  /// no bits to allow that.
  func inject(_ error: BusError) throws {
    let said = try qmp.run("human-monitor-command", ["command-line": "pcie_aer_inject_error \(error.rawValue)"]) as? String ?? ""
    guard said.hasPrefix("OK") else { throw RigError("QEMU: \(error): \(said)") }
  }

  func stop() throws {
    try guest.check("kill $(cat /run/sluice.pid); while kill -0 $(cat /run/sluice.pid) 2> /dev/null; do usleep 20000; done")
  }
  func log() throws -> String { try guest.check("cat /run/sluice.log") }
  /// Lines of the log that say `words`.
  func count(_ words: String) throws -> Int { try log().split(separator: "\n").count { $0.contains(words) } }

  /// What Sluice's own page tables have of front-ends' memory.
  func residentGuestKibibytes() throws -> Int {
    let output = try guest.check("awk '/^[0-9a-f]+-/ { guest = /memfd:guest/ } guest && /^Rss:/ { sum += $2 } END { print sum + 0 }' /proc/$(cat /run/sluice.pid)/smaps")
    guard let kibibytes = Int(output) else { throw RigError("no count of KiB: \(output)") }
    return kibibytes
  }

  func status() throws -> [String: Any] {
    let output = try guest.check("sluice status --control /run/control --json")
    guard let status = try JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any] else { throw RigError("no JSON: \(output)") }
    return status
  }
  private func vm(_ name: String) throws -> [String: Any] { (try status()["vms"] as? [String: [String: Any]])?[name] ?? [:] }
  func receive(_ name: String) throws -> [String: Any] { try vm(name)["receive"] as? [String: Any] ?? [:] }

  /// Waits until the NIC has every buffer of these front-ends. One that is ready has made them available, and not more.
  func buffersArePosted(_ vms: [String]) throws {
    for name in vms {
      try eventually("the buffers of \(name) are posted") {
        (try vm(name)["rings"] as? [[String: Any]])?.first?["outstanding"] as? Int == FrontEnd.bufferCount
      }
    }
  }

  /// Sends a trace to front-ends that acknowledge, as fast as they do, so that none of it is lost.
  func deliver(_ trace: Trace, to vms: [String]) throws {
    try buffersArePosted(vms)
    try wire.send(trace)
  }

  func nic() throws -> [String: Any] { try status()["nic"] as? [String: Any] ?? [:] }

  /// Every law of conservation holds, with nothing under way, and the IOMMU refused nothing.
  func settle() throws {
    var status: [String: Any] = [:]
    do {
      try eventually("nothing is under way") {
        status = try self.status()
        let laws = status["laws"] as? [[String: Any]] ?? []
        return !laws.isEmpty && laws.allSatisfy { $0["holds"] as? Bool == true && $0["in_flight"] as? Int == 0 }
      }
    } catch { throw RigError("\(error): \(status)") }
    guard try nic()["iommu_faults"] as? Int == 0 else { throw RigError("the IOMMU refused the card an access: \(status)") }
  }
}

/// `frontend`, running in the machine: a vhost-user front-end without a guest.
final class FrontEnd {
  /// Of its receive ring.
  static let bufferCount = 256

  private let machine: CardMachine
  private let file: String

  /// Begins to do what `words` say, for the VM `name`; returns when it listens.
  ///
  /// - Parameter mac: its address, if it is not the VM's.
  init(_ verb: String, _ name: String, in machine: CardMachine, as mac: String? = nil, _ words: String) throws {
    self.machine = machine
    file = "/run/frontend-\(name)"
    let mac = mac ?? CardMachine.macs[name == "a" ? 0 : 1]
    try machine.guest.check("cd /run; frontend \(verb) \(name).sock \(mac) \(words) > \(file) 2>&1 & echo $! > \(file).pid")
    try machine.guest.check("until grep -qE 'SINK-READY|SENT' \(file); do usleep 20000; kill -0 $(cat \(file).pid) 2> /dev/null || grep -q SENT \(file) || { cat \(file); exit 1; }; done")
  }

  /// Receives `frames` frames from `first` on, `laps` times.
  static func receiving(_ name: String, in machine: CardMachine, first: Int = 0, frames: Int, laps: Int = 1, within seconds: Int = 600) throws -> FrontEnd {
    try FrontEnd("receive", name, in: machine, "\(first) \(frames) \(laps) \(seconds) acks")
  }

  /// Waits for its end; all that it said.
  func end(within seconds: Int = 700) throws -> String {
    try machine.guest.check("while kill -0 $(cat \(file).pid) 2> /dev/null; do usleep 20000; done; cat \(file)", within: seconds)
  }
  /// How many whole frames came until now.
  func soFar() throws -> Int { try tallySoFar().good }
  /// How many came that are not of the pattern.
  func others() throws -> Int { try tallySoFar().other }
  private func tallySoFar() throws -> Tally {
    let script = """
      said=$(grep -c SO-FAR \(file)); kill -USR1 $(cat \(file).pid)
      until [ $(grep -c SO-FAR \(file)) -gt $said ]; do usleep 20000; kill -0 $(cat \(file).pid) || break; done; cat \(file)
      """
    return try Tally(machine.guest.check(script))
  }
  /// Frames come, from now on.
  func isReceiving() throws {
    let start = try soFar()
    do { try eventually("frames come again") { try soFar() > start + 500 } } catch { throw RigError("\(error): \(try machine.log())") }
  }
  /// Lets it do nothing, or go on.
  func pause() throws { try machine.guest.check("kill -STOP $(cat \(file).pid)") }
  func resume() throws { try machine.guest.check("kill -CONT $(cat \(file).pid)") }
  func interrupt() throws { try machine.guest.check("kill $(cat \(file).pid)") }
  /// Its tally, and that nothing outside its frames was touched.
  func tally(within seconds: Int = 700) throws -> Tally {
    let output = try end(within: seconds)
    guard output.contains("STRAY 0\n") else { throw RigError("bytes were written where none belong: \(output)") }
    return try Tally(output)
  }
}
