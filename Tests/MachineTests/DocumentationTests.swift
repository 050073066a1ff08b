import Foundation
import Testing

/// What the README tells an operator to type is typed: its own lines, but for where files lie, what a guest boots, and
/// what a machine without KVM needs.
@RigActor @Suite(.needs([.sluice, .root] + Need.bookwormGuest)) struct DocumentationTests {
  @Test func `the README's QEMU line is a VM that talks to the host`() throws {
    try withStage { stage in
      let commands = try README.block(with: "qemu-system-x86_64").joiningContinuedLines
      try #require(commands.count == 4 && commands[1].hasPrefix("sluice run ") && commands[1].hasSuffix(" &"))
      let network = try Network(folder: stage.place("network"))
      func type(_ name: String, _ line: String) throws -> Subprocess {
        try Subprocess(name, network.words(["sh", "-c", "exec " + line]), folder: stage.folder)
      }
      try Shell.check(["sh", "-c", stage.moved(commands[0])])
      let backEnd = try type("sluice", stage.moved(String(commands[1].dropLast(2))))
      try backEnd.line(with: "ready")
      try network.check(commands[2])
      let device = "mac=52:54:00:12:34:56 ..."
      try #require(commands[3].hasSuffix(device))
      let line = commands[3].replacing(device, with: "mac=52:54:00:12:34:56,vectors=0 " + Self.boot(stage))
      let machine = try type("qemu", stage.moved(line))
      try talk(stage, network, machine)
      try end(backEnd)
    }
  }

  /// As another user than the back-end's, which libvirt's QEMU is.
  @Test(.needs([.libvirt])) func `the README's libvirt domain is a VM that talks to the host`() throws {
    try withStage { stage in
      let network = try Network(folder: stage.place("network"))
      try Shell.check(["mkdir", "-p", stage.moved("/var/lib/sluice")])
      // The group of the user that the machine is to run as here.
      let configuration = try stage.moved(README.block(with: "permissions: {group: kvm")).replacing("kvm", with: "nogroup")
      try configuration.write(toFile: stage.folder + "/sluice.yaml", atomically: true, encoding: .utf8)
      let backEnd = try Subprocess(
        "sluice", network.words([Rig.sluice, "run", "--config", stage.folder + "/sluice.yaml"]), folder: stage.folder)
      try backEnd.line(with: "ready")
      try network.check("ip addr add 10.9.0.1/24 dev tap0")

      let state = try stage.place("libvirt")
      try FileManager.default.createDirectory(atPath: state + "/root/etc", withIntermediateDirectories: true)
      // Without libvirt's log daemon.
      try "stdio_handler = \"file\"\n".write(toFile: state + "/root/etc/qemu.conf", atomically: true, encoding: .utf8)
      try Self.domain(stage, state).write(toFile: state + "/web.xml", atomically: true, encoding: .utf8)
      try Shell.check(["chown", "-R", "nobody:nogroup", state])
      // In a process namespace: QEMU is no child of what starts it, and has to end with it all the same. Its first
      // process is a shell, which waits for orphans as libvirt expects.
      let machine = try Subprocess(
        "libvirt",
        ["unshare", "--pid", "--mount-proc", "--kill-child", "--"]
          + ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--", "env", "HOME=\(state)"]
          + ["sh", "-c", #"virt-qemu-run --root="$0" --verbose "$1" & wait"#, state + "/root", state + "/web.xml"],
        folder: stage.folder)
      try talk(stage, network, machine, agent: state + "/agent")
      try end(backEnd)
    }
  }

  /// What a guest boots, and the serial lines by which it is told what to do.
  private static func boot(_ stage: Stage) -> String {
    "-nodefaults -display none -kernel \(Kernel.bookworm.image) -initrd \(Kernel.bookworm.initrd) -append '\(command)' "
      + "-serial file:\(stage.folder)/console.log -serial unix:\(stage.folder)/agent,server=on,wait=off"
  }
  private static let command = "console=ttyS0 quiet panic=-1 no_timer_check"

  private static func domain(_ stage: Stage, _ state: String) throws -> String {
    var domain = stage.moved(try README.block(with: "<domain"))
    func replace(_ text: String, by other: String) throws {
      try #require(domain.ranges(of: text).count == 1, "\(text) is not in \(domain)")
      domain = domain.replacing(text, with: other)
    }
    try replace("<domain type='kvm'>", by: "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>")
    try replace(
      "</type>",
      by: "</type><kernel>\(Kernel.bookworm.image)</kernel><initrd>\(Kernel.bookworm.initrd)</initrd><cmdline>\(command)</cmdline>")
    try replace(
      "</devices>",
      by: "<serial type='file'><source path='\(state)/console.log'/></serial>"
        + "<serial type='unix'><source mode='bind' path='\(state)/agent'/></serial></devices>"
        + "<qemu:commandline><qemu:arg value='-global'/><qemu:arg value='virtio-net-pci.vectors=0'/></qemu:commandline>")
    return domain
  }

  private func talk(_ stage: Stage, _ network: Network, _ machine: Subprocess, agent: String? = nil) throws {
    let guest: Guest
    do {
      guest = Guest(try Channel("the guest's agent", to: agent ?? stage.folder + "/agent"))
      try guest.isUp()
    } catch { throw RigError("\(error)\n\(machine.log)") }
    try guest.bringUp(address: "10.9.0.2/24")
    try guest.check("ping -c 5 -i 0.2 -W 10 10.9.0.1")
    try network.check("busybox ping -c 5 -i 0.2 -W 10 10.9.0.2")
    let complaints = try guest.complaints()
    try #require(complaints.isEmpty, "\(complaints)")
    machine.kill()
  }

  private func end(_ backEnd: Subprocess) throws {
    backEnd.signal(SIGTERM)
    try #require(try backEnd.end() == 0)
  }
}

extension Stage {
  /// Text of the README, with this test's folder where it has the machine's, and the `sluice` that is under test.
  fileprivate func moved(_ text: String) -> String {
    var text = text.replacing("/run/sluice", with: folder).replacing("/var/lib/sluice", with: folder + "/state")
    if text.hasPrefix("sluice ") { text = Rig.sluice + text.dropFirst("sluice".count) }
    return text
  }
}

private enum README {
  /// The one code block that has `text` in it.
  static func block(with text: String) throws -> String {
    let readme = try String(contentsOf: Rig.package.appendingPathComponent("README.md"), encoding: .utf8)
    let parts = readme.split(separator: "\n```", omittingEmptySubsequences: false)
    // What stands between two fences, without the language's name.
    let blocks = stride(from: 1, to: parts.count, by: 2).map { parts[$0].drop { $0 != "\n" }.dropFirst() }
    let found = blocks.filter { $0.contains(text) }
    guard found.count == 1 else { throw RigError("the README has \(found.count) blocks with \(text)") }
    return String(found[0])
  }
}

extension String {
  fileprivate var joiningContinuedLines: [String] {
    replacing(/\\\n\s*/, with: "").split(separator: "\n").map(String.init)
  }
}
