import CLinux
import Foundation

/// A descriptor as a driver that knows no rules writes it.
struct Raw {
  var start: UInt64
  var count: UInt32
  var flags: UInt16
  /// Of a split ring; nil: the next one of the chain.
  var next: UInt16?
  init(_ start: UInt64, _ count: Int, _ flags: UInt16, next: UInt16? = nil) {
    self.start = start
    self.count = UInt32(truncatingIfNeeded: count)
    self.flags = flags
    self.next = next
  }
}

extension Ring {
  /// Offers descriptors as they are. Every one but the last has NEXT, unless `isLinked` says that flags say it.
  func offer(raw descriptors: [Raw], isLinked: Bool = true) {
    func flags(_ n: Int) -> UInt16 { descriptors[n].flags | (isLinked && n < descriptors.count - 1 ? Mark.next : 0) }
    if let split = self as? SplitRing {
      let chain = descriptors.map { _ in split.takeDescriptor() }
      for (n, it) in descriptors.enumerated() {
        split.writeDescriptor(chain[n], it.start, it.count, flags(n), it.next ?? (n + 1 < chain.count ? chain[n + 1] : 0))
      }
      split.writeHead(chain[0])
    } else if let packed = self as? PackedRing {
      let id = packed.takeID()
      for (n, it) in descriptors.enumerated() { packed.write(it.start, it.count, id: id, flags: flags(n)) }
    }
  }

  /// A table's entry as it is.
  func writeEntry(_ n: Int, of table: UInt64, _ start: UInt64, _ count: Int, _ flags: UInt16, _ next: UInt16 = 0) {
    let place = table + UInt64(16 * n)
    ram.put64(start, place)
    ram.put32(UInt32(truncatingIfNeeded: count), place + 8)
    // A packed table has an ID there that means nothing, and the flags behind it.
    ram.put16(isPacked ? next : flags, place + 12)
    ram.put16(isPacked ? flags : next, place + 14)
  }
}

/// One rule of virtio 1.3, 2.7, 2.8 or 5.1.6, broken once, and what is said of it.
struct Breach {
  var name: String
  var words: String
  /// Of which ring formats it can be.
  var isSplit = true, isPacked = true
  var features: UInt64?
  var act: (Guest, Ring) -> Void

  static let notMemory = "is not guest memory"
  static let small = "less than the header"
  static let table = "is not allowed there or has an impossible length"
  static let malformed = "loops or is longer than its queue"
  static func direction(_ ring: Ring) -> String { ring.isReceive ? "is not writable" : "is writable" }

  /// Where nothing lies, for a buffer that may be of any kind.
  private static func place(_ guest: Guest) -> UInt64 { guest.ram.take(4096, alignment: 4096) }

  static func both(isReceive: Bool) -> [Breach] {
    let wrong = isReceive ? "is not writable" : "is writable"
    var all = [
      Breach(name: "a piece of the wrong direction", words: wrong) { $1.offer(raw: [Raw(place($0), 2048, $1.flags ^ Mark.write)]) },
      Breach(name: "a second piece of the wrong direction", words: wrong) { guest, ring in
        let place = place(guest)
        ring.offer(raw: [Raw(place, 2048, ring.flags), Raw(place + 2048, 2048, ring.flags ^ Mark.write)])
      },
      Breach(name: "nothing at 0", words: notMemory) { $1.offer(raw: [Raw(0, 2048, $1.flags)]) },
      Breach(name: "before all memory", words: notMemory) { $1.offer(raw: [Raw(GuestRAM.firstAddress - 2048, 2048, $1.flags)]) },
      Breach(name: "a byte before memory", words: notMemory) { $1.offer(raw: [Raw(GuestRAM.firstAddress - 1, 2048, $1.flags)]) },
      Breach(name: "a byte past the end", words: notMemory) { $1.offer(raw: [Raw($0.ram.end - 2047, 2048, $1.flags)]) },
      Breach(name: "at the end", words: notMemory) { $1.offer(raw: [Raw($0.ram.end, 2048, $1.flags)]) },
      Breach(name: "at the end of all", words: notMemory) { $1.offer(raw: [Raw(0 &- 4, 2048, $1.flags)]) },
      Breach(name: "where the front-end has it", words: notMemory) { $1.offer(raw: [Raw($0.ram.frontend(GuestRAM.firstAddress), 2048, $1.flags)]) },
      Breach(name: "where this process has it", words: notMemory) { guest, ring in
        ring.offer(raw: [Raw(UInt64(UInt(bitPattern: guest.ram.regions[0].memory)), 2048, ring.flags)])
      },
      Breach(name: "in the next guest's window", words: notMemory) { $1.offer(raw: [Raw(1 << 40 + GuestRAM.firstAddress, 2048, $1.flags)]) },
      Breach(name: "in the window before", words: notMemory) { $1.offer(raw: [Raw(0 &- (1 << 40) &+ GuestRAM.firstAddress, 2048, $1.flags)]) },
      Breach(name: "nearly 2³² bytes", words: notMemory) { $1.offer(raw: [Raw(GuestRAM.firstAddress, 0xFFFF_FFFF, $1.flags)]) },
      Breach(name: "a second piece nowhere", words: notMemory) { $1.offer(raw: [Raw(place($0), 2048, $1.flags), Raw(0, 64, $1.flags)]) },
      Breach(name: "a second piece past the end", words: notMemory) { $1.offer(raw: [Raw(place($0), 2048, $1.flags), Raw($0.ram.end - 1, 2, $1.flags)]) },
      Breach(name: "11 bytes", words: small) { $1.offer(raw: [Raw(place($0), 11, $1.flags)]) },
      Breach(name: "0 bytes", words: small) { $1.offer(raw: [Raw(place($0), 0, $1.flags)]) },
      Breach(name: "0 bytes nowhere", words: small) { $1.offer(raw: [Raw(0, 0, $1.flags)]) },
      Breach(name: "5 and 6 bytes", words: small) { $1.offer(raw: [Raw(place($0), 5, $1.flags), Raw(place($0), 6, $1.flags)]) },
      Breach(name: "three times nothing", words: small) { $1.offer(raw: [Raw(place($0), 0, $1.flags), Raw(0, 0, $1.flags), Raw(1, 0, $1.flags)]) },
    ]
    all.append(
      Breach(name: "more than 2³² bytes", words: malformed) { guest, ring in
        // A gigabyte that nobody has touched, five times over.
        let big = UInt64(1) << 32
        let file = Handle.file("hostile-big", byteCount: 1 << 30)
        guest.front.message(Ask.addMemReg, littleEndian(UInt64(0), big, UInt64(1 << 30), UInt64(1 << 44), UInt64(0)), fds: [file.number])
        _ = try? guest.front.ask(Ask.getFeatures)
        ring.offer(raw: (0..<5).map { _ in Raw(big, 1 << 30, ring.flags) })
      })
    return all + tables(isReceive: isReceive) + splitOnly + packedOnly
  }

  static func tables(isReceive: Bool) -> [Breach] {
    let wrong = isReceive ? "is not writable" : "is writable"
    func table(_ name: String, _ words: String, _ make: @escaping (Guest, Ring, UInt64) -> Raw) -> Breach {
      Breach(name: name, words: words) { guest, ring in
        let place = place(guest)
        // A good one, which is then spoilt.
        ring.writeTable([Piece(place + 2048, 1024), Piece(place + 3072, 1024)], at: place)
        ring.offer(raw: [make(guest, ring, place)])
      }
    }
    var all = [
      table("a table that ends in a chain", Self.table) { Raw($2, 32, Mark.indirect | Mark.next) },
      table("a table nowhere", notMemory) { _, _, _ in Raw(0, 32, Mark.indirect) },
      table("a table past the end", notMemory) { guest, ring, _ in
        guest.ram.put64(0, guest.ram.end - 16)
        return Raw(guest.ram.end - 16, 32, Mark.indirect)
      },
      table("a table in two regions", notMemory) { guest, _, _ in Raw(guest.ram.regions[1].guest - 16, 32, Mark.indirect) },
      table("a table with more than the queue has", Self.table) { Raw($2, 16 * ($1.size + 1), Mark.indirect) },
      table("a table with an entry of the wrong direction", wrong) { guest, ring, place in
        ring.writeEntry(1, of: place, place + 3072, 1024, ring.flags ^ Mark.write)
        return Raw(place, 32, Mark.indirect)
      },
      table("a table with an entry nowhere", notMemory) { guest, ring, place in
        ring.writeEntry(1, of: place, 64, 1024, ring.flags)
        return Raw(place, 32, Mark.indirect)
      },
      table("a table with 11 bytes", small) { guest, ring, place in
        ring.writeEntry(0, of: place, place + 2048, 11, ring.flags)
        return Raw(place, 16, Mark.indirect)
      },
    ]
    for count in [0, 1, 8, 15, 17, 24, 33, 0xFFFF_FFF0, 0xFFFF_FFFF] {
      all.append(table("a table of \(count) bytes", Self.table) { Raw($2, count, Mark.indirect) })
    }
    var notAgreed = table("a table without agreement", Self.table) { Raw($2, 32, Mark.indirect) }
    notAgreed.features = FeatureBit.version1 | FeatureBit.mergeable
    return all + [notAgreed]
  }

  static var splitOnly: [Breach] {
    func split(_ name: String, _ words: String, _ act: @escaping (Guest, SplitRing) -> Void) -> Breach {
      Breach(name: name, words: words, isPacked: false) { act($0, $1 as! SplitRing) }
    }
    var all: [Breach] = []
    // All that was shown has been taken by now. One more is shown behind it.
    for (name, step): (String, UInt16) in [("one too far", 33), ("by half", 0x8000), ("back by one", 0 &- 2)] {
      all.append(split("an index \(name)", "the available index ran ahead") { _, ring in ring.move(by: step) })
    }
    for head: UInt16 in [32, 33, 0x7FFF, 0x8000, 0xFFFF] {
      all.append(split("head \(head)", "head \(head) is no descriptor of this queue") { _, ring in ring.writeHead(head) })
    }
    all += [
      split("a head that is out", "while it was still out") { guest, ring in
        let head = ring.takeDescriptor()
        ring.writeDescriptor(head, place(guest), 2048, ring.flags, 0)
        ring.writeHead(head)
        ring.writeHead(head)
      },
      split("a chain into itself", malformed) { guest, ring in
        let head = ring.takeDescriptor()
        ring.writeDescriptor(head, place(guest), 64, ring.flags | Mark.next, head)
        ring.writeHead(head)
      },
      split("a chain of two into itself", malformed) { guest, ring in
        let (a, b) = (ring.takeDescriptor(), ring.takeDescriptor())
        ring.writeDescriptor(a, place(guest), 64, ring.flags | Mark.next, b)
        ring.writeDescriptor(b, place(guest), 64, ring.flags | Mark.next, a)
        ring.writeHead(a)
      },
      split("a chain of nothing into itself", malformed) { guest, ring in
        let head = ring.takeDescriptor()
        ring.writeDescriptor(head, place(guest), 0, ring.flags | Mark.next, head)
        ring.writeHead(head)
      },
    ]
    for next: UInt16 in [32, 0x7FFF, 0xFFFF] {
      all.append(
        split("a chain to \(next)", malformed) { guest, ring in
          let head = ring.takeDescriptor()
          ring.writeDescriptor(head, place(guest), 2048, ring.flags | Mark.next, next)
          ring.writeHead(head)
        })
    }
    /// Two entries, of which the first leads somewhere.
    func table(_ name: String, _ words: String, _ flags: UInt16, _ next: UInt16) -> Breach {
      split(name, words) { guest, ring in
        let place = place(guest)
        ring.writeEntry(0, of: place, place + 2048, 1024, ring.flags | Mark.next | flags, next)
        ring.writeEntry(1, of: place, place + 3072, 1024, ring.flags | Mark.next | flags, 0)
        ring.offer(raw: [Raw(place, 32, Mark.indirect)])
      }
    }
    all += [
      table("a table into itself", malformed, 0, 0), table("a table in a circle", malformed, 0, 1),
      table("a table to its end", malformed, 0, 2), table("a table far out", malformed, 0, 0xFFFF),
      table("a table in a table", Self.table, Mark.indirect, 1),
      split("a chain and a table that are too long together", malformed) { guest, ring in
        let place = place(guest)
        ring.writeTable((0..<ring.size).map { _ in Piece(place + 2048, 8) }, at: place)
        ring.offer(raw: [Raw(place + 2048, 64, ring.flags), Raw(place, 16 * ring.size, Mark.indirect)])
      },
    ]
    return all
  }

  static var packedOnly: [Breach] {
    func packed(_ name: String, _ words: String, _ act: @escaping (Guest, PackedRing) -> Void) -> Breach {
      Breach(name: name, words: words, isSplit: false) { act($0, $1 as! PackedRing) }
    }
    return [
      packed("a chain without an end", malformed) { guest, ring in
        let place = place(guest)
        for _ in 0..<ring.size { ring.write(place, 64, id: 5, flags: ring.flags | Mark.next) }
      },
      packed("a chain of nothing without an end", malformed) { guest, ring in
        for _ in 0..<ring.size { ring.write(0, 0, id: 5, flags: ring.flags | Mark.next) }
      },
      packed("a chain into what is out", malformed) { guest, ring in
        let place = place(guest)
        for _ in 0..<ring.size - ring.outstanding + (ring.isReceive ? 1 : 0) { ring.write(place, 64, id: 5, flags: ring.flags | Mark.next) }
        if !ring.isReceive { ring.write(place, 64, id: 5, flags: ring.flags) }
      },
      packed("a table behind a piece", Self.table) { guest, ring in
        let place = place(guest)
        ring.writeTable([Piece(place + 2048, 1024)], at: place)
        ring.offer(raw: [Raw(place + 1024, 64, ring.flags), Raw(place, 16, Mark.indirect)])
      },
      packed("a table behind a table", Self.table) { guest, ring in
        let place = place(guest)
        ring.writeTable([Piece(place + 2048, 1024)], at: place)
        ring.offer(raw: [Raw(place, 16, Mark.indirect), Raw(place, 16, Mark.indirect)])
      },
    ]
  }
}
