import GuestMemory
import Linux
import Testing

@Suite struct DirtyLogTests {
  private func makeLog(_ byteCount: Int) throws -> DirtyLog {
    let file = try MemoryFile(name: "log", byteCount: byteCount)
    return DirtyLog(mapping: try Mapping(of: file.descriptor, byteCount: byteCount), byteCount: byteCount)
  }

  @Test func `a range marks every page that it touches, once`() throws {
    let log = try makeLog(64)
    #expect(log.mark(GuestAddress(4095), byteCount: 2) == 2)
    #expect(log.mark(GuestAddress(0), byteCount: 8192) == 0)
    #expect(log.mark(GuestAddress(8192), byteCount: 1) == 1)
  }

  @Test func `nothing, and what lies past the log's end, is not marked`() throws {
    let log = try makeLog(1)
    #expect(log.mark(GuestAddress(0), byteCount: 0) == 0)
    #expect(log.mark(GuestAddress(7 * 4096), byteCount: 4096 * 5) == 1)
    #expect(log.mark(GuestAddress(8 * 4096), byteCount: 4096) == 0)
    #expect(log.mark(GuestAddress(.max), byteCount: .max) == 0)
  }
}
