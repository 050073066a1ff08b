internal import GuestMemory
internal import Linux

/// The guest's memory as the front-end described it, region by region, each with what it is mapped by.
///
/// A region that is described again, from the same file, is the same object: its pages were never unmapped, and what
/// a card knows of them stays true.
struct MemoryTable {
  struct Entry {
    let description: RegionDescription
    /// Device and inode of its file.
    let file: [UInt64]
    let isShrinkable: Bool
    let region: MemoryRegion
  }
  private(set) var entries: [Entry] = []
  /// Regions that were told of once more while they were there, and so will be taken away once more: see `adding`.
  private var repeats: [RegionDescription] = []

  var byteCount: UInt64 { entries.reduce(0) { $0 + $1.description.byteCount } }
  var isEmpty: Bool { entries.isEmpty }

  /// Bytes of log, one bit a page, that cover all of it.
  var logByteCount: UInt64 {
    let last = entries.map { $0.description.guestStart.rawValue + ($0.description.byteCount - 1) }.max()
    return last.map { $0 / 4096 / 8 + 1 } ?? 0
  }

  /// A table of these regions in place of this one.
  func replaced(
    by wanted: [RegionDescription], _ files: inout ReceivedDescriptors, _ request: Request, limits: Limits
  ) throws(MessageError) -> MemoryTable {
    try Self.check(wanted, mostBytes: limits.mostGuestBytes)
    var result = MemoryTable()
    for description in wanted {
      guard let file = files.takeFirst() else { throw .wrongDescriptorCount(request, 0, expected: 1...1) }
      result.entries.append(try entry(description, file, request, keepsFile: result.keptFiles < limits.mostKeptFiles))
    }
    return result
  }

  /// This table with one region more; or as it is, if it is told once more of one that it has. QEMU 7.2 tells of each
  /// region, and takes it away, once a queue pair.
  ///
  /// - Parameter tellers: how often each may be told of.
  func adding(
    _ description: RegionDescription, _ files: inout ReceivedDescriptors, slots: Int, tellers: Int, limits: Limits
  ) throws(MessageError) -> MemoryTable {
    if let there = entries.first(where: { $0.description == description }),
      repeats.count(where: { $0 == description }) < tellers - 1
    {
      guard let file = files.takeFirst() else { throw .wrongDescriptorCount(.addMemReg, 0, expected: 1...1) }
      let status = try file.checkedMemory(.addMemReg)
      guard there.file == [status.device, status.inode] else {
        throw .regionsOverlap(description.guestStart, description.guestStart)
      }
      var result = self
      result.repeats.append(description)
      return result
    }
    guard entries.count < slots else { throw .tooManyRegions(entries.count + 1, limit: slots) }
    try Self.check(entries.map(\.description) + [description], mostBytes: limits.mostGuestBytes)
    guard let file = files.takeFirst() else { throw .wrongDescriptorCount(.addMemReg, 0, expected: 1...1) }
    var result = self
    result.entries.append(try entry(description, file, .addMemReg, keepsFile: keptFiles < limits.mostKeptFiles))
    return result
  }

  /// This table without a region, which is named by everything but its offset. vhost-user, VHOST_USER_REM_MEM_REG. It
  /// goes the first time that this is said, however often it was told of.
  func removing(_ gone: RegionDescription) throws(MessageError) -> MemoryTable {
    func isIt(_ it: RegionDescription) -> Bool {
      it.guestStart == gone.guestStart && it.frontendStart == gone.frontendStart && it.byteCount == gone.byteCount
    }
    var result = self
    if let found = entries.firstIndex(where: { isIt($0.description) }) {
      result.entries.remove(at: found)
    } else if let found = repeats.firstIndex(where: isIt) {
      result.repeats.remove(at: found)
    } else {
      throw .noSuchRegion(gone.guestStart, gone.frontendStart, byteCount: gone.byteCount)
    }
    return result
  }

  /// Whether each of its regions, as an object, is in the other one too.
  func isContained(in other: MemoryTable) -> Bool {
    let theirs = Set(other.entries.map { ObjectIdentifier($0.region) })
    return entries.allSatisfy { theirs.contains(ObjectIdentifier($0.region)) }
  }

  /// nil if there is no memory.
  func map() throws(MessageError) -> MemoryMap? {
    if isEmpty { return nil }
    do { return try MemoryMap(entries.map(\.region)) } catch { throw .memory(error) }
  }

  private var keptFiles: Int { entries.count(where: \.region.keepsFile) }

  private func entry(
    _ description: RegionDescription, _ file: borrowing OwnedDescriptor, _ request: Request, keepsFile: Bool
  ) throws(MessageError) -> Entry {
    let status = try file.checkedMemory(request)
    let identity = [status.device, status.inode]
    if let same = entries.first(where: { $0.description == description && $0.file == identity }) { return same }
    // `check` has seen that both are less than 2^63.
    guard let byteCount = Int(exactly: description.byteCount), let offset = Int(exactly: description.offset) else {
      throw Self.bad(description)
    }
    do {
      let region = try MemoryRegion(
        at: description.guestStart, frontendStart: description.frontendStart, of: file, byteCount: byteCount, offset: offset,
        keepsFile: keepsFile)
      return Entry(
        description: description, file: identity, isShrinkable: !status.isSealedAgainstShrinking, region: region)
    } catch { throw .memory(error) }
  }

  /// Sizes, ends, and that no two share an address: the guest's or the front-end's.
  private static func check(_ regions: [RegionDescription], mostBytes: UInt64) throws(MessageError) {
    var total: UInt64 = 0
    for region in regions {
      guard region.isPossible else { throw bad(region) }
      let sum = total.addingReportingOverflow(region.byteCount)
      total = sum.overflow ? .max : sum.partialValue
      guard total <= mostBytes else { throw .tooMuchMemory(total, limit: mostBytes) }
    }
    let byGuest = regions.sorted { $0.guestStart < $1.guestStart }
    for (a, b) in zip(byGuest, byGuest.dropFirst()) where b.guestStart.rawValue - a.guestStart.rawValue < a.byteCount {
      throw .regionsOverlap(a.guestStart, b.guestStart)
    }
    let byFrontend = regions.sorted { $0.frontendStart < $1.frontendStart }
    for (a, b) in zip(byFrontend, byFrontend.dropFirst())
    where b.frontendStart.rawValue - a.frontendStart.rawValue < a.byteCount {
      throw .frontendRegionsOverlap(a.frontendStart, b.frontendStart)
    }
  }

  private static func bad(_ region: RegionDescription) -> MessageError {
    .badRegion(region.guestStart, region.frontendStart, byteCount: region.byteCount, offset: region.offset)
  }
}

extension RegionDescription {
  /// Not empty, inside each of its three address spaces, and a page of the guest is a page of the file: a card's
  /// memory is mapped by pages.
  fileprivate var isPossible: Bool {
    byteCount > 0 && !guestStart.rawValue.addingReportingOverflow(byteCount).overflow
      && !frontendStart.rawValue.addingReportingOverflow(byteCount).overflow
      && offset <= UInt64(Int64.max) && byteCount <= UInt64(Int64.max) - offset
      && (guestStart.rawValue &- offset) % 4096 == 0
  }
}

extension OwnedDescriptor {
  /// Memory that is safe to map: shared memory or huge pages, for reading and writing. A file of any other file system
  /// could let us wait for its pages without end.
  borrowing func checkedMemory(_ request: Request) throws(MessageError) -> FileStatus {
    do {
      if let status = try memoryStatus(), status.access == .both { return status }
      throw try MessageError.wrongDescriptor(request, kind(), needed: .memory)
    } catch let error as SystemError {
      throw .system(error)
    } catch let error as MessageError {
      throw error
    } catch { preconditionFailure("no other error is thrown here") }
  }

  /// Something that can be raised and waited for.
  consuming func checkedEvent(_ request: Request) throws(MessageError) -> SharedDescriptor {
    let kind: FileStatus.Kind
    do { kind = try self.kind() } catch { throw .system(error) }
    guard kind == .event else { throw .wrongDescriptor(request, kind, needed: .event) }
    return SharedDescriptor(self)
  }
}
