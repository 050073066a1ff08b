import Simulation
import Testing

@Suite struct ClockTests {
  @Test func `a pause lets just so much time pass`() {
    let clock = SimulatedClock(now: 5)
    clock.pause(nanoseconds: 10)
    #expect(clock.now == 15)
    clock.now = 100
    #expect(clock.now == 100)
  }

  @Test func `observers see the time in the order they came`() {
    let clock = SimulatedClock()
    var seen: [String] = []
    clock.observe { seen.append("a\($0)") }
    clock.observe { seen.append("b\($0)") }
    clock.pause(nanoseconds: 3)
    #expect(seen == ["a3", "b3"])
  }

  @Test func `time that passes in an observer does not call it again`() {
    let clock = SimulatedClock()
    var seen: [UInt64] = []
    clock.observe { _ in clock.pause(nanoseconds: 1) }
    clock.observe { seen.append($0) }
    clock.pause(nanoseconds: 10)
    #expect(seen == [11])
  }
}
