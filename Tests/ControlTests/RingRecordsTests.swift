import Foundation
import Linux
import Testing
import Virtio

@testable import Control

@Suite struct RingRecordsTests {
  private func withDirectory(_ body: (String) throws -> Void) throws {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("rings-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    try body(directory)
  }

  @Test func `each ring has a file for this user alone`() throws {
    try withDirectory { directory in
      let records = try RingRecords(directory: directory, vm: "web", ringCount: 4)
      #expect(!records[3].isLive)
      let names = try FileManager.default.contentsOfDirectory(atPath: directory).sorted()
      #expect(names == ["web.ring0", "web.ring1", "web.ring2", "web.ring3"])
      for name in names {
        let attributes = try FileManager.default.attributesOfItem(atPath: directory + "/" + name)
        #expect(attributes[.posixPermissions] as? Int == 0o600)
      }
    }
  }

  /// A ring's own file and a front-end's region; as live as they say.
  @Test(arguments: [(false, false, 1), (true, false, 0), (false, true, 1), (true, true, 0)])
  func `of two records of a ring the one that is live goes on, and no other is left`(own: Bool, given: Bool, chosen: Int) throws {
    let records = try [own, given].map { isLive in
      let mapping = try Mapping(anonymousBytes: 4096)
      // Bit 48 of the state.
      if isLive { mapping.base.storeBytes(of: 1, toByteOffset: 24 + 6, as: UInt8.self) }
      mapping.base.storeBytes(of: 77, toByteOffset: 32, as: UInt64.self)
      return RingRecord(mapping: mapping)
    }
    let found = RingRecord.chosen(of: records, for: 77)
    #expect(found === records[chosen])
    #expect(found?.isLive == (own || given))
    #expect(!records[1 - chosen].isLive)
    #expect(RingRecord.chosen(of: records, for: 78)?.isLive == false, "another guest's")
    #expect(RingRecord.chosen(of: [], for: 77) == nil)
  }

  @Test func `two back-ends cannot keep the same rings`() throws {
    try withDirectory { directory in
      let first = try RingRecords(directory: directory, vm: "web", ringCount: 2)
      #expect(throws: ServiceError.self) { try RingRecords(directory: directory, vm: "web", ringCount: 2) }
      withExtendedLifetime(first) {}
    }
    try withDirectory { directory in
      _ = try RingRecords(directory: directory, vm: "web", ringCount: 2)
      _ = try RingRecords(directory: directory, vm: "web", ringCount: 2)
    }
  }

  @Test func `a directory that is not there, and a link in place of a file, are refused`() throws {
    #expect(throws: ServiceError.self) { try RingRecords(directory: "/nowhere/at/all", vm: "web", ringCount: 1) }
    try withDirectory { directory in
      try FileManager.default.createSymbolicLink(atPath: directory + "/web.ring0", withDestinationPath: "/dev/null")
      #expect(throws: ServiceError.self) { try RingRecords(directory: directory, vm: "web", ringCount: 1) }
    }
  }
}
