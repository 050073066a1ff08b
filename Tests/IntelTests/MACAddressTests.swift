import FlowSteering
import Testing

@Suite struct MACAddressTests {
  @Test func `an address prints as it reads`() throws {
    let address = try MACAddress(parsing: "02:0a:FF:00:10:09")
    #expect(address.rawValue == 0x020A_FF00_1009)
    #expect("\(address)" == "02:0a:ff:00:10:09")
    #expect((0..<6).map(address.octet) == [2, 10, 255, 0, 16, 9])
    #expect(!address.isGroup && MACAddress.broadcast.isGroup)
  }

  @Test func `what is not six octets is refused with the place`() {
    func error(_ text: String) -> MACAddress.ParseError? {
      do throws(MACAddress.ParseError) { _ = try MACAddress(parsing: text) } catch { return error }
      return nil
    }
    #expect(error("") == .octetCount(1))
    #expect(error("02:00:00:00:00") == .octetCount(5))
    #expect(error("02:00:00:00:00:00:00") == .octetCount(7))
    #expect(error("02:00:0:00:00:00") == .notAnOctet("0", at: 2))
    #expect(error("02:00:+1:00:00:00") == .notAnOctet("+1", at: 2))
    #expect(error("02:00:00:00:00:0g") == .notAnOctet("0g", at: 5))
    #expect(error("02:00:00:00:00:") == .notAnOctet("", at: 5))
  }
}
