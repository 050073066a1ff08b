import Glibc
import GuestMemory
import Linux
import Support
import Testing

/// A region of a file, from wherever it begins in it.
@Suite struct RegionTests {
  private func check(_ file: borrowing MemoryFile, _ offset: Int, _ byteCount: Int) throws {
    let region = try MemoryRegion(at: GuestAddress(0x1000_0000), of: file.descriptor, byteCount: byteCount, offset: offset)
    try Support.check(region.byteCount, is: byteCount, "bytes")
    var view = MemoryView(try MemoryMap([region]))
    // First and last bytes, against the whole file mapped from its beginning.
    let whole = try Mapping(of: file.descriptor, byteCount: file.byteCount, alignment: file.pages.byteCount)
    for (place, value) in [(0, UInt32(0xA1A2_A3A4)), (byteCount - 4, 0xB1B2_B3B4)] {
      view.slice(GuestRange(GuestAddress(0x1000_0000 + UInt64(place)), count: 4))!.store32(value, 0)
      let found = unsafe whole.base.loadUnaligned(fromByteOffset: offset + place, as: UInt32.self)
      try Support.check(found, is: value, "the file at \(offset) + \(place)")
    }
    let past = view.slice(GuestRange(GuestAddress(0x1000_0000 + UInt64(byteCount)), count: 1)) != nil
    try Support.check(!past, "nothing is past its end")
  }

  @Test(arguments: [(0, 4096), (4096, 8192), (1, 4096), (4095, 2), (5000, 4), (16380, 4), (0, 16384), (100, 16284)])
  func `a region of ordinary pages may begin at any byte`(offset: Int, byteCount: Int) throws {
    try check(try MemoryFile(name: "test", byteCount: 16384), offset, byteCount == 2 ? 4 : byteCount)
  }

  @Test(arguments: [(0, 2 << 20), (2 << 20, 2 << 20), (4096, 1 << 20), ((2 << 20) - 4096, 8192), (1 << 20, 2 << 20), (3 << 20, 1 << 20)])
  func `a region of huge pages is mapped by whole ones`(offset: Int, byteCount: Int) throws {
    // They are reserved when they are mapped.
    guard let file = try? MemoryFile(name: "test", byteCount: 4 << 20, pages: .huge),
      (try? Mapping(of: file.descriptor, byteCount: 4 << 20, alignment: 2 << 20)) != nil
    else {
      print("skipped: no huge pages are free on this machine (vm.nr_hugepages)")
      return
    }
    try check(file, offset, byteCount)
  }

  @Test(arguments: [(0, 16385), (1, 16384), (16384, 1), (16385, 1), (-1, 4096), (Int.max, 1), (1, Int.max)])
  func `a region past its file's end is refused`(offset: Int, byteCount: Int) throws {
    let file = try MemoryFile(name: "test", byteCount: 16384)
    #expect(throws: MemoryError.self) {
      _ = try MemoryRegion(at: GuestAddress(0), of: file.descriptor, byteCount: byteCount, offset: offset)
    }
  }

  @Test func `a region names its bytes by its file where that is wanted, and keeps that open as long as it lives`() throws {
    let file = try MemoryFile(name: "test", byteCount: 16384)
    func region(keepsFile: Bool) throws -> MemoryRegion {
      try MemoryRegion(at: GuestAddress(0x1000_0000), of: file.descriptor, byteCount: 8192, offset: 4096, keepsFile: keepsFile)
    }
    #expect(try region(keepsFile: false).place() == nil)
    let number: CInt
    do {
      let region = try region(keepsFile: true)
      let place = try #require(region.place(of: 100))
      #expect(place.offset == 4196 && region.place()?.offset == 4096 && place.number != file.descriptor.number)
      unsafe region.base.storeBytes(of: 0xC1C2_C3C4, toByteOffset: 100, as: UInt32.self)
      var found: UInt32 = 0
      unsafe #expect(pread(place.number, &found, 4, off_t(place.offset)) == 4 && found == 0xC1C2_C3C4)
      number = place.number
    }
    // Another thread may have the number again, of another file.
    var (here, there) = (stat(), stat())
    unsafe #expect(fstat(file.descriptor.number, &here) == 0 && (fstat(number, &there) != 0 || here.st_ino != there.st_ino))
  }

  @Test func `a log may begin anywhere in its mapping`() throws {
    let file = try MemoryFile(name: "log", byteCount: 4096)
    let log = DirtyLog(mapping: try Mapping(of: file.descriptor, byteCount: 4096), offset: 100, byteCount: 2)
    log.mark(GuestAddress(9 * 4096), byteCount: 1)
    log.mark(GuestAddress(16 * 4096), byteCount: 1)
    var bytes = [UInt8](repeating: 0, count: 104)
    unsafe #expect(pread(file.descriptor.number, &bytes, 104, 0) == 104)
    #expect(bytes == [UInt8](repeating: 0, count: 101) + [2, 0, 0])
  }
}
