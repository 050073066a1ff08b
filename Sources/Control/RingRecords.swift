internal import Linux
internal import Virtio

/// Where the places of a VM's packed rings are kept: a file a ring in the state directory, that outlives this process.
///
/// Split rings need none: their used index, in the guest's memory, says where a successor goes on.
final class RingRecords {
  private let files: [StateFileBox]
  private let records: [RingRecord]

  /// Opens the files of a VM, or makes them.
  init(directory: String, vm: String, ringCount: Int) throws(ServiceError) {
    let byteCount = RingRecord.byteCount(ringSize: 32768)
    var (files, records): ([StateFileBox], [RingRecord]) = ([], [])
    for ring in 0..<ringCount {
      let path = "\(directory)/\(vm).ring\(ring)"
      do throws(SystemError) {
        let file = try StateFile(at: path, byteCount: byteCount)
        records.append(RingRecord(mapping: try Mapping(of: file.descriptor, byteCount: byteCount)))
        files.append(StateFileBox(file))
      } catch {
        throw .state(
          error.isBusy
            ? "\(path): another process keeps it; is a back-end for VM \(vm) running already?"
            : "\(path): \(error); it must be a directory that this user may write to")
      }
    }
    self.files = files
    self.records = records
  }

  subscript(ring: Int) -> RingRecord { records[ring] }

  private final class StateFileBox {
    let file: StateFile
    init(_ file: consuming StateFile) { self.file = file }
  }
}

extension RingRecord {
  /// Of what a guest's ring may be written down in, the one to go on with: one that is live, for it knows where the ring
  /// stands, or the last. The others are not kept from now on, and say nothing any more.
  static func chosen(of records: [RingRecord], for guest: UInt64) -> RingRecord? {
    for record in records { record.belong(to: guest) }
    let chosen = records.first(where: \.isLive) ?? records.last
    for other in records where other !== chosen { other.clear() }
    return chosen
  }
}
