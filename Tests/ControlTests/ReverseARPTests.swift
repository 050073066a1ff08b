import Testing

@testable import Control

@Suite struct ReverseARPTests {
  /// RFC 903 with RFC 826's packet format: hardware 1, protocol 0x0800, lengths 6 and 4, operation 3.
  @Test func `a machine asks for its own address, to everybody, in a frame of the least size`() {
    let frame = ReverseARP.frame([0x52, 0x54, 0, 0x12, 0x34, 0x56])
    let address: [UInt8] = [0x52, 0x54, 0, 0x12, 0x34, 0x56]
    #expect(frame.count == 60)
    #expect(frame[0..<6].allSatisfy { $0 == 0xFF })
    #expect(Array(frame[6..<12]) == address)
    #expect(frame[12..<22] == [0x80, 0x35, 0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x03])
    #expect(Array(frame[22..<28]) == address)
    #expect(Array(frame[32..<38]) == address)
    #expect(frame[42...].allSatisfy { $0 == 0 })
  }
}
