import ControlSocket
import ControlSupport
import Foundation
import Testing

@testable import sluice

struct RatesTests {
  private let first = StatsReport(statusFixture())
  /// Two seconds later: a million frames lent and as many bounced, 500 dropped.
  private var second: StatsReport {
    var report = first
    report.uptime_s += 2
    report.nic.received.frames += 2_000_500
    report.nic.received.bytes += 2_000_500_000
    report.vms["web"]?.receive.lent.frames += 1_000_000
    report.vms["web"]?.receive.lent.bytes += 1_000_000_000
    report.vms["web"]?.receive.bounced.frames += 1_000_000
    report.vms["web"]?.receive.bounced.bytes += 1_000_000_000
    report.vms["web"]?.receive.dropped_by["no_buffers", default: 0] += 400
    report.vms["web"]?.receive.dropped_by["too_long"] = 100
    return report
  }

  @Test func `a rate is what grew, by the time between`() throws {
    let rates = try #require(Rates(from: first, to: second))
    #expect(rates.seconds == 2 && rates.wire.frames == 1_000_250 && rates.wire.bits == 8_002_000_000)
    let web = rates.vms[0]
    #expect(web.name == "web" && web.receive.frames == 1_000_000 && web.receive.bits == 8e9 && web.receive.lentPercent == 50)
    #expect(web.receive.drops == 250 && web.receive.dropsBy == ["no_buffers": 200, "too_long": 50])
    #expect(web.transmit == .init(frames: 0, bits: 0, lentPercent: nil, drops: 0, dropsBy: [:]))
    #expect(rates.vms.map(\.name) == ["web", "db"])
  }

  @Test func `a back-end that was started anew has no rate yet`() {
    var other = second
    other.pid += 1
    #expect(Rates(from: first, to: other) == nil)
    other = second
    other.uptime_s = 1
    #expect(Rates(from: first, to: other) == nil && Rates(from: first, to: first) == nil)
  }

  @Test func `a counter that went back has begun anew`() throws {
    var other = second
    other.vms["web"]?.receive.lent.frames = 10
    let rates = try #require(Rates(from: first, to: other))
    #expect(rates.vms[0].receive.frames == 500_005)
  }

  @Test func `for a person it is a table`() throws {
    let rates = try #require(Rates(from: first, to: second))
    #expect(
      RatesText.table(rates, colours: false) == """
        up 1:02:07, rates over 2.00 s
                              frames         bits      lent           drops
        wire     in   1.00 Mframes/s  8.00 Gbit/s         -               0
        web      rx   1.00 Mframes/s  8.00 Gbit/s   50.00 %          250 /s
                 tx       0 frames/s      0 bit/s         -               0
        db       rx       0 frames/s      0 bit/s         -               0
                 tx       0 frames/s      0 bit/s         -               0
        web rx drops: no_buffers 200/s, too_long 50.0/s

        """)
    #expect(RatesText.table(rates, colours: false, columns: 40).split(separator: "\n").filter { $0.count > 40 }.count == 1, "the header alone")
  }

  @Test func `for who reads on it is a line a VM`() throws {
    let rates = try #require(Rates(from: first, to: second))
    #expect(
      RatesText.lines(rates) == """
        1:02:07 web rx 1.00 Mframes/s, 8.00 Gbit/s, 50.00 % lent, 250 drops/s (no_buffers 200/s, too_long 50.0/s) tx 0 frames/s, 0 bit/s
        1:02:07 db rx 0 frames/s, 0 bit/s tx 0 frames/s, 0 bit/s

        """)
  }

  @Test func `for a program it is an object in a line`() throws {
    let rates = try #require(Rates(from: first, to: second))
    let text = RatesJSON(rates).text
    #expect(!text.contains("\n"))
    let json = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    #expect(Set(json.keys) == ["schema", "seconds", "uptime_s", "wire", "vm_order", "vms"])
    let web = (json["vms"] as? [String: [String: [String: Any]]])?["web"]
    #expect(web?["receive"]?["frames_per_second"] as? Double == 1_000_000 && web?["receive"]?["lent_percent"] as? Double == 50)
    #expect(web?["receive"]?["drops_per_second_by"] as? [String: Double] == ["no_buffers": 200, "too_long": 50])
    #expect(web?["transmit"]?["lent_percent"] is NSNull, "the share of nothing is not known")
  }
}
