// swift-tools-version: 6.2
import PackageDescription

// Read it from the top: each target imports only from the lines above its own.
// Layer 0 is C, layer 9 is the program.

let settings: [SwiftSetting] = [
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

// For tests that look at guests' memory as a whole: every line of them would be marked unsafe.
let looseSettings: [SwiftSetting] = [.treatAllWarnings(as: .error), .enableUpcomingFeature("ExistentialAny")]

func system(_ name: String, pkgConfig: String, debian: String) -> Target {
  .systemLibrary(name: name, pkgConfig: pkgConfig, providers: [.apt([debian])])
}
func library(_ name: String, _ imports: Target.Dependency..., exclude: [String] = []) -> Target {
  .target(name: name, dependencies: imports, exclude: exclude, swiftSettings: settings)
}
func tests(of name: String, _ imports: Target.Dependency...) -> Target {
  .testTarget(
    name: name + "Tests", dependencies: [.target(name: name)] + imports, swiftSettings: settings)
}

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")
let nio = ["NIOCore", "NIOPosix", "NIOHTTP1"].map { Target.Dependency.product(name: $0, package: "swift-nio") }
let histogram = Target.Dependency.product(name: "Histogram", package: "hdrhistogram-swift")

let package = Package(
  name: "sluice",
  products: [.executable(name: "sluice", targets: ["sluice"])],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
  ],
  targets: [
    // 0: C
    .target(name: "CLinux"),
    system("CPcap", pkgConfig: "libpcap", debian: "libpcap-dev"),
    system("CNuma", pkgConfig: "numa", debian: "libnuma-dev"),
    system("CCrypto", pkgConfig: "libcrypto", debian: "libssl-dev"),
    // 1: the machine
    library("Linux", "CLinux", "CNuma"),
    library("FlowSteering"),
    // 2: memory and traces
    library("GuestMemory", "Linux", "CLinux"),
    library("FlowTables", "FlowSteering"),
    library("FlowDialects", "FlowSteering"),
    library("Capture", "CPcap", exclude: ["Readings.md"]),
    // 3: the guest's rings, and the bus
    library("Virtio", "GuestMemory", "Linux", "CLinux"),
    library("Bus", "GuestMemory", "Linux", "CLinux"),
    // 4: the seam between kinds of NIC, and talking to a front-end
    library("NIC", "Bus"),
    library("VFIO", "Bus", "Linux", "CLinux"),
    library("VhostUser", "Virtio", "GuestMemory", "FlowSteering", "Linux", exclude: ["Readings.md", "SystemCalls.md"]),
    // 5: what stands on either side of the seams; none of these names another
    library("Datapath", "NIC", "Virtio", "Bus", "GuestMemory", "Linux", "CLinux"),
    library("Intel", "NIC", "Bus", "FlowTables", "FlowSteering", "Linux", "CLinux"),
    library(
      "Simulation", "Bus", "Virtio", "GuestMemory", "FlowSteering", "Linux", "CLinux", "CCrypto",
      exclude: ["Card/Readings.md"]),
    // 6: a trace, a card, its driver, the paths and the guests, put together
    library(
      "Replay", "Datapath", "Intel", "Simulation", "Capture", "FlowTables", "FlowSteering", "NIC", "Virtio", "Bus",
      "GuestMemory", "Linux", "CLinux", "CCrypto", histogram),
    // 7: front-ends' sessions, workers, and what a running back-end says of itself
    library(
      "Control", "Replay", "VhostUser", "VFIO", "Datapath", "Intel", "Simulation", "Capture", "FlowTables", "FlowSteering", "NIC", "Virtio", "Bus",
      "GuestMemory", "Linux", "CLinux"),
    // Beside it: replays that are measured
    library("Benchmark", "Replay", "Datapath", "Simulation", "Capture", "FlowSteering", "Linux", "CLinux"),
    // 8: both ends of the control socket
    .target(name: "ControlSocket", dependencies: ["Control", "FlowSteering", "Linux"] + nio, swiftSettings: settings),
    // 9: the program
    .executableTarget(
      name: "sluice",
      dependencies: [
        "ControlSocket", "Control", "Benchmark", "VFIO", "Replay", "Datapath", "Simulation", "FlowTables", "FlowDialects", "FlowSteering", "Linux", argumentParser,
        logging,
        yams,
      ],
      resources: ["sluice.service", "sluice.yaml", "sluice-vhost-user.json"].map { .embedInCode("Packaging/" + $0) },
      swiftSettings: settings),
    // Tests, one folder a target
    tests(of: "FlowSteering"),
    tests(of: "FlowTables", "FlowSteering"),
    .target(
      name: "ReceiveConformance", dependencies: ["Datapath", "Intel", "FlowTables", "FlowSteering", "NIC", "Bus", "GuestMemory", "Linux"], path: "Tests/ReceiveConformance",
      swiftSettings: settings),
    .executableTarget(
      name: "CardConformance", dependencies: ["ReceiveConformance", "Datapath", "Intel", "VFIO", "Virtio", "Bus", "GuestMemory", "FlowSteering", "Linux"],
      path: "Tests/CardConformance",
      swiftSettings: settings),
    tests(
      of: "Intel", "ReceiveConformance", "Simulation", "Capture", "NIC", "Bus", "FlowTables", "FlowSteering", "GuestMemory", "Linux", "CLinux",
      "Support"),
    tests(of: "Benchmark", "Replay", "Datapath", "FlowSteering", "Linux"),
    tests(of: "FlowDialects", "FlowTables", "FlowSteering"),
    tests(of: "Simulation", "Bus", "GuestMemory", "Linux", "Virtio", "CLinux"),
    .executableTarget(
      name: "TraceGenerator", dependencies: ["Capture", argumentParser], path: "Tests/TraceGenerator",
      exclude: ["capture-real.sh"], swiftSettings: settings),
    tests(of: "Capture", "TraceGenerator"),
    .testTarget(
      name: "ScenarioTests",
      dependencies: [
        "Replay", "Intel", "Capture", "FlowTables", "FlowSteering", "GuestMemory", "Simulation", "Bus", "Linux", "Datapath",
      ],
      swiftSettings: looseSettings),
    .testTarget(
      name: "HostileTests", dependencies: ["Control", "Simulation", "Bus", "Datapath", "FlowSteering", "Linux", "CLinux"], swiftSettings: looseSettings),
    .testTarget(name: "MachineTests", dependencies: ["sluice", "CardConformance", "Support"], swiftSettings: looseSettings),
    .testTarget(name: "TidyTests", swiftSettings: looseSettings),
    // Benchmarks, one folder a question
    .target(name: "BenchSupport", path: "Bench/Support", swiftSettings: looseSettings),
    .executableTarget(
      name: "ReceiveCost", dependencies: ["Replay", argumentParser], path: "Bench/ReceiveCost", swiftSettings: settings),
    .target(name: "CReceiveTurn", dependencies: ["CLinux"], path: "Bench/ReceiveInC/CReceiveTurn"),
    .executableTarget(
      name: "ReceiveInC",
      dependencies: [
        "CReceiveTurn", "Replay", "Datapath", "Intel", "Simulation", "NIC", "Virtio", "Bus", "GuestMemory", "Linux", "CLinux", argumentParser,
      ],
      path: "Bench/ReceiveInC", exclude: ["CReceiveTurn"], swiftSettings: settings),
    .executableTarget(
      name: "PumpRate",
      dependencies: ["Intel", "Simulation", "NIC", "Bus", "FlowSteering", "Linux", argumentParser], path: "Bench/PumpRate",
      swiftSettings: settings),
    .executableTarget(
      name: "SteeringCost", dependencies: ["FlowTables", "FlowSteering", argumentParser], path: "Bench/SteeringCost", swiftSettings: settings),
    .executableTarget(
      name: "versus-dpdk", dependencies: ["BenchSupport", "Benchmark", "Linux", argumentParser], path: "Bench/VersusDPDK", swiftSettings: looseSettings),
    .executableTarget(
      name: "PartsCost", dependencies: ["Datapath", "Intel", "Simulation", "Virtio", "Bus", "GuestMemory", "Linux", "CLinux", argumentParser],
      path: "Bench/PartsCost", swiftSettings: settings),
    .executableTarget(
      name: "compare", dependencies: ["BenchSupport", "Benchmark", argumentParser], path: "Bench/Compare", swiftSettings: looseSettings),
    // What tests share.
    .target(
      name: "Support", dependencies: ["NIC", "Virtio", "Bus", "GuestMemory", "Linux", "CLinux"],
      path: "Tests/Support", swiftSettings: settings),
    tests(of: "Linux", "CLinux", "Support"),
    tests(of: "GuestMemory", "Linux", "Support"),
    tests(of: "Virtio", "GuestMemory", "Linux", "Support"),
    tests(of: "Bus", "GuestMemory", "Linux", "Support"),
    .testTarget(
      name: "VhostUserTests", dependencies: ["VhostUser", "Virtio", "GuestMemory", "FlowSteering", "Linux", "CLinux", "Support"],
      swiftSettings: looseSettings),
    tests(of: "VFIO", "Bus", "Linux"),
    tests(of: "Datapath", "NIC", "Virtio", "Bus", "GuestMemory", "Support"),
    .target(
      name: "ControlSupport", dependencies: ["Control", "Linux"], path: "Tests/ControlSupport", swiftSettings: looseSettings),
    .testTarget(name: "ControlTests", dependencies: ["Control", "VhostUser", "Virtio", "Bus", "FlowSteering", "Linux"], swiftSettings: looseSettings),
    .testTarget(
      name: "ControlSocketTests", dependencies: ["ControlSocket", "Control", "ControlSupport", "Linux", "Support"] + nio, swiftSettings: looseSettings),
    tests(
      of: "sluice", "Benchmark", "Replay", "Datapath", "Simulation", "FlowSteering", "Capture", "Control", "ControlSocket", "ControlSupport",
      "Linux", "Support", argumentParser, logging),
  ]
)
