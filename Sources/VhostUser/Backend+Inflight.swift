internal import Linux
internal import Virtio

// What is in flight when we die, in memory that the front-end keeps for who comes next. vhost-user, "Inflight I/O
// tracking". Rings that start from now on use it; one that runs keeps what it has.
extension Backend {
  /// GET_INFLIGHT_FD: a region for as many rings, of as many entries, as the front-end says. It is in use at once.
  ///
  /// The front-end may keep the file for as long as it likes, and its pages are charged to us. So it is sparse: only its
  /// header is written here, what a ring's record needs when that ring runs. And there are few: some for a connection, and
  /// some for a VM in a time, however often it connects.
  func makeInflight(_ wanted: InflightDescription, _ now: UInt64) throws(MessageError) -> (InflightDescription, SharedDescriptor) {
    let byteCount = try inflightByteCount(wanted)
    try countInflight(now)
    var made = wanted
    do {
      let file = try MemoryFile(name: "inflight", byteCount: byteCount)
      let mapping = try Mapping(
        ofForeign: file.descriptor, byteCount: file.byteCount, offset: 0, alignment: file.pages.byteCount,
        page: file.pages.byteCount)
      (made.byteCount, made.offset) = (UInt64(file.byteCount), 0)
      use(InflightRegion(mapping: mapping, ringCount: Int(wanted.ringCount), ringSize: Int(wanted.ringSize), isFresh: true))
      return (made, SharedDescriptor(try file.descriptor.duplicate()))
    } catch { throw .system(error) }
  }

  /// SET_INFLIGHT_FD: the region that a predecessor made, or we.
  func setInflight(_ place: InflightDescription, _ file: consuming OwnedDescriptor) throws(MessageError) {
    let needed = try inflightByteCount(place)
    let status = try file.checkedMemory(.setInflightFd)
    let page = status.pageByteCount
    guard let byteCount = Int(exactly: place.byteCount), let offset = Int(exactly: place.offset), byteCount >= needed,
      offset % page == 0, offset <= status.byteCount, byteCount <= status.byteCount - offset
    else {
      throw .badInflightPlace(
        byteCount: place.byteCount, offset: place.offset, fileBytes: status.byteCount, needed: needed)
    }
    do {
      let length = (needed + page - 1) / page * page
      let mapping = try Mapping(ofForeign: file, byteCount: length, offset: offset, alignment: page, page: page)
      use(InflightRegion(mapping: mapping, ringCount: Int(place.ringCount), ringSize: Int(place.ringSize)))
    } catch { throw .system(error) }
  }

  private func inflightByteCount(_ wanted: InflightDescription) throws(MessageError) -> Int {
    let (rings, size) = (Int(wanted.ringCount), Int(wanted.ringSize))
    guard (1...offer.ringCount).contains(rings), (1...RingLayout.largestSize).contains(size) else {
      throw .badInflight(rings: wanted.ringCount, size: wanted.ringSize, limit: offer.ringCount)
    }
    return InflightRegion.byteCount(ringCount: rings, ringSize: size)
  }

  private func countInflight(_ now: UInt64) throws(MessageError) {
    let refilled = min((now &- inflightFiles.since) / limits.inflightRefill, UInt64(inflightFiles.ofVM))
    inflightFiles.ofVM -= Int(refilled)
    inflightFiles.since = inflightFiles.ofVM == 0 ? now : inflightFiles.since &+ refilled * limits.inflightRefill
    guard inflightFiles.ofConnection < limits.inflightPerConnection else {
      throw .tooManyInflight(limit: limits.inflightPerConnection)
    }
    guard inflightFiles.ofVM < limits.inflightAtOnce else { throw .tooManyInflight(limit: limits.inflightAtOnce) }
    inflightFiles.ofConnection += 1
    inflightFiles.ofVM += 1
  }

  private func use(_ region: InflightRegion) {
    inflight = region
    report(.inflight(ringCount: region.ringCount, wasForeign: region.wasForeign))
  }
}
