import Foundation
import Testing

/// The unit that `sluice run --print-unit` prints, under systemd: what it locks in can still do its work.
@RigActor @Suite(.needs([.sluice, .root, .systemd])) struct SystemdTests {
  @Test func `the unit starts, is watched, started again when it hangs or dies, and ends`() throws {
    try withStage { stage in
      let words = [Rig.package.path + "/Tests/Rig/systemd.sh", Rig.sluice, try stage.place("systemd")]
      let said = try Shell.check(words, within: 3 * Deadline.patience).split(separator: "\n").map(String.init)
      try #require(
        Array(said.prefix(7)) == [
          "started: yes, restarts 0", "socket: sluice:games 660", "reloaded: yes, restarts 0", "hung: yes, restarts 1",
          "killed: yes, restarts 2", "stopped: success", "wrong file: failed, status 78",
        ], "\(said.joined(separator: "\n"))")
    }
  }
}
