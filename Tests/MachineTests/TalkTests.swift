import Foundation
import Testing

/// A guest and a host in a network namespace, joined by the back-end's wire: both directions, and protocols that answer.
@RigActor @Suite(.needs([.backEnd, .root])) struct TalkTests {
  private static let megabytes = 10

  @Test(.needs(Need.bookwormGuest)) func `a guest of Linux 6.1 pings a host, and a file comes back as it went`() throws {
    try talk(.bookworm, .machine)
  }

  @Test(.needs(Need.backportsGuest)) func `a guest of Linux 6.12 pings a host, and a file comes back as it went`() throws {
    try talk(.backports, .backports) {
      $0.isPacked = true
      $0.pairs = 2
    }
  }

  private func talk(_ kernel: Kernel, _ emulator: Emulator, _ change: (inout Port) -> Void = { _ in }) throws {
    try withStage { stage in
      let network = try Network(folder: stage.place("network"))
      var port = stage.port()
      change(&port)
      let backEnd = try stage.backEnd([port], network: network)
      try network.check("ip addr add 10.98.0.1/24 dev tap0 && ip link set tap0 up")
      let machine = try stage.machine(for: port) {
        $0.kernel = kernel
        $0.emulator = emulator
      }
      try machine.isUp()
      try machine.guest.bringUp(address: "10.98.0.2/24")
      try machine.guest.check("ping -c 5 -i 0.2 -W 10 10.98.0.1")
      try machine.guest.check("ping -c 3 -i 0.2 -W 10 -s 1400 10.98.0.1")
      try network.check("busybox ping -c 5 -i 0.2 -W 10 10.98.0.2")
      let sum = try machine.guest.check("dd if=/dev/urandom of=/run/file bs=1M count=\(Self.megabytes) 2> /dev/null; sha256sum < /run/file")
      // There, by a busybox at each end: the listener ends when the sender has closed, and not for its own input's end,
      let file = stage.folder + "/file"
      let host = try Subprocess(
        "host", network.words(["sh", "-c", "busybox nc -l -p 9000 > \(file)"]), folder: stage.place("host"))
      try machine.guest.check("until nc 10.98.0.1 9000 < /run/file; do usleep 100000; done")
      try host.end()
      let there = try Shell.check(["sh", "-c", "sha256sum < \(file); stat -c %s \(file)"])
      try #require(there.hasPrefix(sum.prefix(64)), "sent \(sum), received \(there)")
      // and back.
      try machine.guest.check("tail -f /dev/null | nc -l -p 9001 > /run/back & echo $! > /run/nc.pid")
      try network.check("until busybox nc 10.98.0.2 9001 < \(file); do sleep 0.1; done")
      let back = try machine.guest.check("while kill -0 $(cat /run/nc.pid) 2> /dev/null; do usleep 20000; done; sha256sum < /run/back")
      try #require(back == sum)
      let complaints = try machine.guest.complaints()
      try #require(complaints.isEmpty, "\(complaints)")
      try backEnd.settle()
      try backEnd.stop()
    }
  }

  /// Through the card's own switch: there is no wire.
  @Test(.needs([.sluice] + Need.bookwormGuest)) func `two guests talk with one another`() throws {
    try withStage { stage in
      let ports = [stage.port("a"), stage.port("b", mac: "52:54:00:12:34:57")]
      let backEnd = try stage.backEnd(ports)
      let machines = try ports.map { try stage.machine(for: $0) }
      for (index, machine) in machines.enumerated() {
        try machine.isUp()
        try machine.guest.bringUp(address: "10.98.0.\(index + 1)/24")
      }
      let (one, other) = (machines[0].guest, machines[1].guest)
      try one.check("ping -c 5 -i 0.2 -W 10 10.98.0.2")
      try other.check("ping -c 3 -i 0.2 -W 10 -s 1400 10.98.0.1")
      let sum = try one.check("dd if=/dev/urandom of=/run/file bs=1M count=\(Self.megabytes) 2> /dev/null; sha256sum < /run/file")
      try other.check("tail -f /dev/null | nc -l -p 9000 > /run/file & echo $! > /run/nc.pid")
      try one.check("until nc 10.98.0.2 9000 < /run/file; do usleep 100000; done")
      let there = try other.check("while kill -0 $(cat /run/nc.pid) 2> /dev/null; do usleep 20000; done; sha256sum < /run/file")
      try #require(there == sum)
      try backEnd.settle()
      try backEnd.stop()
    }
  }
}
