import ArgumentParser
import Control
import VFIO

/// `sluice run`
struct RunCommand: CommandWithStatus {
  static let statuses: [(ExitStatus, String)] = [
    (.accounted, "ended by SIGTERM or SIGINT, as asked; with --check: nothing is wrong"),
    (.usage, "bad usage: an option, a value"), (.configuration, ExitStatus.configuration.meaning),
    (.machine, "the machine refused something: memory, a thread, a socket, a TAP device"),
    (.interrupted, "a second SIGINT came before the end"), (.terminated, "a second SIGTERM came before the end"),
  ]

  static let configuration = CommandConfiguration(
    commandName: "run",
    abstract: "Run a vhost-user back-end: network cards for virtual machines.",
    discussion: """
      Examples:
        sluice run --vm web,socket=/run/web.sock --control /run/control.sock
        sluice run --vm a,socket=a,mac=02:00:00:00:00:01 --vm b,socket=b,mac=...
        sluice run --vm a,socket=qemu.sock,client,queues=2 --wire tap=tap0
        sluice run --nic vfio:0000:03:00.0 --vm a,socket=a,mac=02:00:00:00:00:01
        sluice run --config /etc/sluice/sluice.yaml
        sluice run --config sluice.yaml --check
        sluice run --print-config > sluice.yaml
        sluice run --print-unit > /etc/systemd/system/sluice.service

      It stays in the foreground, and logs to standard error. SIGTERM or SIGINT end it; SIGHUP makes it read its \
      configuration file again, take over what can change while it runs, and log what waits for a restart. \
      Under systemd it says when it is ready (Type=notify) and gives signs of life (WatchdogSec=).

      Under a name that ends in vhost-user-net (a link to the program) it is a vhost-user back-end program as QEMU's \
      conventions have it: --socket-path, --fd, --print-capabilities, without 'run'.

      Exit statuses:
      \(ExitStatus.table(statuses))
      """)

  @OptionGroup(title: "Virtual machines") var machines: MachineOptions
  @OptionGroup(title: "Network card") var card: CardOptions
  @OptionGroup(title: "Running") var running: RunningOptions
  @OptionGroup(title: "Log") var logging: LoggingOptions
  @OptionGroup(title: "Configuration file") var file: FileOptions
  @OptionGroup(title: "Back-end program conventions, for one VM") var program: ProgramOptions

  struct MachineOptions: ParsableArguments {
    @Option(
      name: .customLong("vm"),
      help: .init(
        """
        A VM, as NAME,socket=PATH[,key=value...]; may be repeated. server (we listen; the default) or client (the \
        front-end listens); mac, vlan: whose frames it gets (one VM alone: everything), and all that it may send \
        under and into; spoof=deny|allow: what becomes of other frames that it sends (default: deny, dropped and \
        counted); vlan-port=access|tagged: access: the NIC takes the VLAN's tag off and puts it in (default; \
        tagged with spoof=allow); queues: pairs of them, 1, 2 or 4; packed=on|off: offer packed rings; \
        config=on|off: offer the card's address and MTU, for front-ends that ask; datapath=auto|required|copy; \
        ring-size-limit: the most entries of a ring (default: 32768); memory-limit: the most memory that the \
        front-end may share, as 64Gi (default: 1Ti).
        """, valueName: "vm"))
    var vms: [String] = []

    @Option(
      help: .init("A file of rules for which frames go to whom, one a line; see sluice rules.", valueName: "file"), completion: .file())
    var rules: String?
  }

  struct CardOptions: ParsableArguments {
    @Option(
      help: .init(
        """
        The network card: sim, a register-level model of the Intel 82599, or vfio:ADDRESS, an Intel 82599, 82576 or I350 \
        that vfio-pci has; sluice doctor says what it lacks. sim:no-payload leaves out the bytes of frames, to measure what is \
        left when hardware writes them. (default: sim)
        """, valueName: "card"), completion: .custom { _, _, _ in CardCompletion.cards })
    var nic: String?

    @Option(
      help: .init("How the kernel's VFIO is asked: group, iommufd, or auto, by iommufd where there is one. (default: auto)", valueName: "interface"),
      completion: .list(["auto"] + VFIODevice.Interface.allCases.map(\.rawValue)))
    var vfio: String?

    @Option(
      help: .init(
        """
        How much of guests' memory the card can reach: static, all of it while a front-end is connected; or strict, a page \
        only while a buffer in it is lent, at the price of calls of the kernel's for every frame. (default: static)
        """, valueName: "mode"), completion: .list(Configuration.NIC.Protection.allCases.map(\.rawValue)))
    var protect: String?

    @Option(help: .init("Where its cable leads: tap=NAME, a TAP device. (default: nowhere)", valueName: "wire"))
    var wire: String?

    @Option(help: .init("Where frames go that rules send to the host: tap=NAME, a TAP device, whose own frames go out of the card. (default: rules cannot)", valueName: "tap=name"))
    var host: String?

    @Option(help: .init("Bytes of payload that fit a frame, 68 to 9710. (default: 1500)", valueName: "bytes"))
    var mtu: String?

    @Option(help: .init("Descriptors of each of its rings: a multiple of 8 from 64 to 4096. (default: 1024)", valueName: "n"))
    var ringSize: String?

    @Option(
      help: .init(
        "How long a real card waits after one interrupt of a worker's before the next, in microseconds, 0 to 1000. (default: 20)", valueName: "n"))
    var moderationUs: String?
  }

  struct RunningOptions: ParsableArguments {
    @Option(help: .init("The socket for status, stats, inject and /metrics. (default: none)", valueName: "path"), completion: .file())
    var control: String?

    @Option(
      help: .init("Where rings' places are kept, so that packed rings survive a restart. (default: none, and packed is not offered)", valueName: "folder"),
      completion: .directory)
    var stateDir: String?

    @Option(help: .init("Threads that move frames, 1 to 16. (default: 1)", valueName: "n"))
    var workers: String?

    @Option(help: .init("Processors for these, in order. (default: none is pinned)", valueName: "a,b"))
    var cpus: String?

    @Option(help: .init("How long a thread with nothing to do looks before it sleeps, in microseconds. (default: 50)", valueName: "n"))
    var spinUs: String?
  }

  struct LoggingOptions: ParsableArguments {
    @Option(
      help: .init("Leave out less than debug, info, notice, warning or error. (default: info)", valueName: "level"),
      completion: .list(LogEvent.Level.allCases.map(\.rawValue)))
    var logLevel: String?

    @Option(help: .init("text, or json: an object a line. (default: text)", valueName: "format"), completion: .list(["text", "json"]))
    var logFormat: String?
  }

  struct FileOptions: ParsableArguments {
    @Option(help: .init("Take everything from this YAML file; only the log's options may stand beside it.", valueName: "file"), completion: .file())
    var config: String?

    @Flag(help: "Look whether all is right, print the configuration with its defaults, and end.") var check = false
    @Flag(help: "With --check: print it as JSON.") var json = false
    @Flag(help: "Print an example of a configuration file.") var printConfig = false
    @Flag(help: "Print a unit for systemd.") var printUnit = false
  }

  struct ProgramOptions: ParsableArguments {
    @Option(help: .init("Listen for the front-end here.", valueName: "path"), completion: .file()) var socketPath: String?
    @Option(help: .init("The front-end is, or will be, at this descriptor.", valueName: "n")) var fd: String?
    @Flag(help: "Print what kind of back-end this is, as JSON.") var printCapabilities = false
    @Flag(help: "Print the file for /usr/share/qemu/vhost-user/50-sluice.json.") var printDescription = false
  }

  func finish() throws(Failure) -> ExitStatus {
    if let text = Packaging.text(for: self) {
      try StandardStream.output.write(text)
      return .accounted
    }
    let plan = try plan()
    if file.json && !file.check { throw .usage("--json", "", "goes with --check; a running back-end is asked by 'sluice status --json'") }
    if file.check {
      let effective = EffectiveConfiguration(plan.configuration, plan.log)
      try StandardStream.output.write(file.json ? effective.json + "\n" : effective.yaml)
      return .accounted
    }
    // The log has a thread of its own already.
    Signals.block(hangUp: true)
    let log = try ServiceLog(plan.log)
    try Daemon(configuration: plan.configuration, log: log, reread: reread()).run(Self.makeService)
    return .accounted
  }

  /// The options of the log stay what they were, whatever the file says by now.
  private func reread() -> (@Sendable () throws(Failure) -> ConfigurationFile)? {
    guard let path = file.config else { return nil }
    let logging = logging
    return { () throws(Failure) in
      var file = try ConfigurationFile.read(path)
      try logging.apply(to: &file.log)
      return file
    }
  }
}

enum CardCompletion {
  /// The model, and the cards that vfio-pci has.
  static var cards: [String] { ["sim", "sim:no-payload"] + PCIFunction.all().filter { $0.isNetwork && $0.driver == "vfio-pci" }.map { "vfio:\($0.address)" } }
}
