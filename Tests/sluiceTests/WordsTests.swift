import Testing

@testable import sluice

struct WordsTests {
  @Test(arguments: [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567"), (-1_000, "-1,000")])
  func `thousands are set apart`(number: Int, text: String) {
    #expect(grouped(number) == text)
    #expect(grouped(UInt64.max) == "18,446,744,073,709,551,615")
  }

  @Test(arguments: [
    (0, 2, "0.00"), (1.005, 1, "1.0"), (1234.5678, 3, "1,234.568"), (-0.25, 2, "-0.25"), (0.999, 2, "1.00"),
    (.infinity, 1, "-"), (.nan, 1, "-"), (1e30, 0, "-"),
  ] as [(Double, Int, String)])
  func `a number is rounded to its places`(number: Double, places: Int, text: String) {
    #expect(fixed(number, places) == text)
  }

  @Test func `units leave one to three digits before the point`() {
    #expect(bytes(0) == "0 B")
    #expect(bytes(999) == "999 B")
    #expect(bytes(1_000) == "1.00 kB")
    #expect(bytes(273_024_000) == "273 MB")
    #expect(bytes(999_600) == "1.00 MB")
    #expect(bitRate(35.14e9) == "35.1 Gbit/s")
    #expect(frameRate(12_345_678) == "12.3 Mframes/s")
    #expect(nanoseconds(310_000) == "310 µs")
    #expect(nanoseconds(4_096) == "4.10 µs")
    #expect(nanoseconds(62_200_000) == "62.2 ms")
  }

  @Test(arguments: [(0, "0:00"), (7.9, "0:07"), (754, "12:34"), (3_723, "1:02:03"), (-1, "-:--"), (.infinity, "-:--")] as [(Double, String)])
  func `a time is told as a clock does`(seconds: Double, text: String) {
    #expect(clock(seconds) == text)
  }

  @Test func `lines break at spaces`() {
    #expect(wrapped("one two three", width: 8) == ["one two", "three"])
    #expect(wrapped("unbreakable", width: 4) == ["unbreakable"])
    #expect(wrapped("", width: 4) == [])
  }

  @Test func `a name cannot steer the terminal`() {
    #expect(printable("a\u{1B}[31m\rb\u{9B}") == "a\u{FFFD}[31m\u{FFFD}b\u{FFFD}")
    #expect(printable("größe.pcap") == "größe.pcap")
  }
}
