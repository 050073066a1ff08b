import GuestMemory
import VhostUser
import Virtio

/// A device that does nothing but to note what it was asked, and to notice what may not be asked.
final class RecordingDevice: BackendDevice {
  enum Call: Equatable {
    case start(Int), stop(Int), enabled(Int, Bool), call(Int, Bool), memory(Int), noMemory
    case log(Int?), logAddress(Int, GuestAddress?), mtu(Int), announce([UInt8])
  }
  var calls: [Call] = []
  /// What may not be asked, and was.
  var violations: [String] = []
  /// Of rings that run.
  var running: [Int: RingSetup] = [:]
  var map: MemoryMap?
  var log: DirtyLog?
  /// What `stop` answers, by ring; what it was started with if nothing is here.
  var bases: [Int: RingBase] = [:]
  /// Rings whose place was to be forgotten.
  var forgotten: [Int] = []
  /// Front-ends that have gone.
  var departures = 0
  var refusesStart = false
  var refusesMemory = false
  var refusesMTU = false
  /// Called when a ring is turned on or off.
  var onEnable: () -> Void = {}

  func forget() { calls = [] }

  func start(_ ring: RingSetup) throws(RingRefusal) {
    if map == nil { violations.append("ring \(ring.index) started without memory") }
    if running[ring.index] != nil { violations.append("ring \(ring.index) started twice") }
    if refusesStart { throw RingRefusal("the device does not want to") }
    running[ring.index] = ring
    calls.append(.start(ring.index))
  }
  func stop(ring: Int) -> RingBase {
    calls.append(.stop(ring))
    guard let setup = running.removeValue(forKey: ring) else {
      violations.append("ring \(ring) stopped without running")
      return RingBase(split: 0)
    }
    return bases[ring] ?? setup.base
  }
  func forgetPlace(ring: Int) {
    if running[ring] != nil { violations.append("ring \(ring)'s place forgotten while it runs") }
    forgotten.append(ring)
  }
  func setEnabled(_ isEnabled: Bool, ring: Int) {
    if running[ring] == nil { violations.append("ring \(ring) enabled without running") }
    calls.append(.enabled(ring, isEnabled))
    onEnable()
  }
  func setCall(_ call: SharedDescriptor?, ring: Int) {
    if let old = running[ring] {
      running[ring] = RingSetup(
        index: ring, layout: old.layout, features: old.features, base: old.base, kick: old.kick, call: call,
        isEnabled: old.isEnabled, logAddress: old.logAddress, record: old.record)
    } else {
      violations.append("ring \(ring) given a call without running")
    }
    calls.append(.call(ring, call != nil))
  }
  func setMemory(_ map: MemoryMap?) throws(RingRefusal) {
    if let old = self.map, !running.isEmpty,
      !old.regions.allSatisfy({ region in map?.regions.contains { $0 === region } == true })
    {
      violations.append("memory taken away under running rings")
    }
    if map != nil && refusesMemory { throw RingRefusal("no room for this memory") }
    self.map = map
    calls.append(map.map { .memory($0.regions.count) } ?? .noMemory)
  }
  func setLog(_ log: DirtyLog?) {
    self.log = log
    calls.append(.log(log?.byteCount))
  }
  func setLogAddress(_ address: GuestAddress?, ring: Int) {
    if running[ring] == nil { violations.append("ring \(ring) given a log address without running") }
    calls.append(.logAddress(ring, address))
  }
  func disconnected() {
    if map != nil || !running.isEmpty { violations.append("gone before what it had was taken away") }
    departures += 1
  }
  func setMTU(_ byteCount: Int) -> Bool {
    calls.append(.mtu(byteCount))
    return !refusesMTU
  }
  func announce(_ address: [UInt8]) { calls.append(.announce(address)) }
}
