import Bus
import Datapath
import NIC
import Support
import Testing
import Virtio

/// The path against the reference, with whatever a guest may post and a card may bring.
@Suite struct RandomTests {
  /// Every shape that a driver may post, around the bytes that a frame needs (12 + 1518).
  private func shape(_ random: inout SeededGenerator) -> (lengths: [Int], gaps: [Int]) {
    let gap = random.pick([0, 0, 1, 64])
    switch random.int(0...13) {
    case 0, 1: return ([random.pick([1529, 1530, 1531, 1536])], [])
    case 2: return ([12, random.pick([1517, 1518, 1519, 2048])], [0, gap])
    case 3: return ([8, 4, 1518], [0, 0, gap])
    case 4: return ([6, 1524], [0, gap])
    case 5: return ([20, 1000, 600], [0, gap, gap])
    case 6: return ([4096], [])
    case 7: return ([random.int(12...200)], [])
    case 8: return ([random.int(201...1529)], [])
    case 9: return ([12], [])
    case 10: return ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1518], [])
    case 11: return ((0..<random.int(1...6)).map { _ in random.int(12...500) }, (0..<6).map { _ in random.pick([0, 3]) })
    case 12: return ([13, random.int(1400...1600)], [0, gap])
    default: return ([0, 1530], [])
    }
  }

  private func bring(_ rig: Rig, _ random: inout SeededGenerator, isWild: Bool) {
    let count = random.pick([14, 60, 64, 128, 500, 501, 1000, 1514, 1517, 1518, random.int(14...1518)])
    let checked: Completion.Flags = random.once(in: 2) ? .isChecksumValid : []
    guard isWild && random.once(in: 8) else {
      rig.receive(rig.frame(count), flags: [.isEnd, checked])
      return
    }
    switch random.int(0...2) {
    case 0: rig.receive(rig.frame(count), flags: [.isEnd, .isDamaged, checked])
    case 1:
      let claim = random.pick([1519, 1520, 4084, 4085, 65535, 0x7FFF_FFFF, 0xFFFF_FFF3, 0xFFFF_FFF4, 0xFFFF_FFFF] as [UInt32])
      rig.receive(rig.frame(1518), claiming: claim, flags: [.isEnd, checked])
    default:
      for _ in 0..<random.int(1...3) { rig.receive(rig.frame(count), flags: []) }
      if !random.once(in: 4) { rig.receive(rig.frame(20), flags: random.pick([.isEnd, [.isEnd, .isDamaged]])) }
    }
  }

  private func run(
    _ random: inout SeededGenerator, size: Int, mode: PathMode, merges: Bool, turns: Int, onlyOneShape: Bool,
    isPacked: Bool
  ) throws -> Rig {
    var features: Features = [.version1, .indirectDescriptors]
    if isPacked { features.insert(.ringPacked) }
    if merges { features.insert(.mergeableBuffers) }
    if random.once(in: 2) { features.insert(.guestChecksum) }
    if random.once(in: 2) { features.insert(.eventIndex) }
    let rig = try Rig(
      size: size, capacity: random.pick([1, 2, 8, 32, 256]), mode: mode, features: features,
      base: random.pick([0, 65530, 32760]), first: random.pick([0, size - 1, 2 * size - 1]), hostBuffers: random.pick([1, 4, 64, 256]),
      random: SeededGenerator(seed: random.next()))
    let isWild = random.once(in: 2)
    let refuses = random.once(in: 3)
    let common = shape(&random)
    for turn in 0..<turns {
      for _ in 0..<random.pick([0, 1, 3, size]) {
        let (lengths, gaps) = onlyOneShape && !random.once(in: 20) ? common : shape(&random)
        if !rig.post(lengths, gaps: gaps, indirect: random.once(in: 3)) { break }
      }
      // The guest has nothing more for a while.
      if random.once(in: 15) { for _ in 0..<10 { try rig.turn() } }
      // Some pages cannot be mapped, now these, now others.
      if refuses {
        let salt = random.next()
        rig.refuse { ($0 >> 12 ^ salt) % 3 == 0 }
      }
      // Frames come while the path is at work, or before its turn.
      let atRing = random.pick([0, 0, 1, 5, 300])
      var source = SeededGenerator(seed: random.next())
      rig.card.onRing = { [unowned rig] in for _ in 0..<atRing where rig.card.free > 0 { self.bring(rig, &source, isWild: isWild) } }
      for _ in 0..<random.pick([0, 1, 3, 70]) where rig.card.free > 0 { bring(rig, &random, isWild: isWild) }
      rig.card.hidden = random.once(in: 4) ? random.int(0...3) : 0
      try rig.turn()
      if turn % 10 == 9 { try rig.checkMemory() }
    }
    rig.card.onRing = {}
    rig.card.hidden = 0
    for _ in 0..<5 { try rig.turn() }
    try rig.checkMemory()
    return rig
  }

  @Test(arguments: [1, 2, 8, 64, 256], PathMode.allCases)
  func `a path does what the reference says, frame for frame and byte for byte`(size: Int, mode: PathMode) throws {
    try withSeeds(size > 64 ? 12 : 40) { random in
      let merges = random.once(in: 2)
      _ = try run(
        &random, size: size, mode: mode, merges: merges, turns: 60, onlyOneShape: random.once(in: 2), isPacked: false)
    }
  }

  @Test(arguments: [1, 2, 3, 8, 61, 256], PathMode.allCases)
  func `so it does over a packed virtqueue`(size: Int, mode: PathMode) throws {
    try withSeeds(size > 64 ? 12 : 40) { random in
      let merges = random.once(in: 2)
      _ = try run(
        &random, size: size, mode: mode, merges: merges, turns: 60, onlyOneShape: random.once(in: 2), isPacked: true)
    }
  }

  @Test func `these runs come to every way to deliver a frame, and to drop one`() throws {
    var reached: Set<String> = []
    for seed in 1...40 as ClosedRange<UInt64> {
      var random = SeededGenerator(seed: seed)
      let rig = try run(
        &random, size: seed % 5 == 0 ? 2 : 64, mode: seed % 4 == 0 ? .copy : .auto, merges: seed % 2 == 0, turns: 60, onlyOneShape: false,
        isPacked: seed % 3 == 0)
      let counters = rig.path.counters
      if counters.lentFrames > 0 { reached.insert("lent") }
      if counters.returnedEmpty > 0 { reached.insert("empty") }
      for reason in BounceReason.allCases where counters.bounced(reason) > 0 { reached.insert(reason.name) }
      for drop in PathDrop.allCases where counters.dropped(drop) > 0 { reached.insert(drop.name) }
    }
    let wanted = ["lent", "empty"] + BounceReason.allCases.map(\.name)
      + PathDrop.allCases.filter { $0 != .ringViolation && $0 != .stopped }.map(\.name)
    #expect(reached.sorted() == wanted.sorted())
  }
}
