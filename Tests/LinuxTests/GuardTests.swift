import CLinux
import Glibc
import Linux
import Support
import Testing

/// The handler that puts zeros in place of truncated memory, against guards that end and begin meanwhile.
@Suite struct GuardTests {
  /// One thread touches truncated memory again and again; another ends a guard below it and begins one above it, by turns,
  /// with the same slot. A handler that took the start of the one and the end of the other would wipe what lies between.
  ///
  /// GUARD_FAULTS= is how often memory is touched.
  @Test func `a handler never takes the bounds of two guards for those of one`() throws {
    let faults = unsafe getenv("GUARD_FAULTS").map { unsafe Int(String(cString: $0)) ?? 0 } ?? 20_000
    let page = 4096
    let arena = try Mapping(anonymousBytes: 32 * page)
    let low = unsafe arena.base
    let truncated = unsafe arena.base + 16 * page
    let high = unsafe arena.base + 31 * page
    // Bytes that no guard covers.
    let canaries = (1..<16).map { $0 * page } + (17..<31).map { $0 * page }
    for offset in canaries { unsafe sl_store8(arena.base + offset, 0xA5) }
    // The other thread's slot is found first; it and the ones before are of those that could lie in two cache lines.
    let place = try Mapping(anonymousBytes: page)
    var fillers: [CInt] = []
    repeat { fillers.append(unsafe sl_guard(place.base, page)) } while fillers.last! >= 0 && fillers.last! % 8 != 5
    let slot = fillers.removeLast()
    defer { for filler in fillers { sl_guard_end(filler) } }
    try check(slot >= 0, "no slot")
    let ours = unsafe sl_guard(truncated, page)
    defer { sl_guard_end(ours) }
    try check(ours > slot, "slots are taken in another order")
    let file = try MemoryFile(name: "guard", byteCount: page)
    try check(ftruncate(file.descriptor.number, 0) == 0, "ftruncate")

    let isOver = SharedWord()
    let (lowBits, highBits) = (UInt(bitPattern: low), UInt(bitPattern: high))
    let other = try Thread(name: "guards") {
      var mine = slot
      while isOver.value == 0 {
        sl_guard_end(mine)
        mine = unsafe sl_guard(UnsafeMutableRawPointer(bitPattern: lowBits)!, page)
        sl_guard_end(mine)
        mine = unsafe sl_guard(UnsafeMutableRawPointer(bitPattern: highBits)!, page)
      }
      sl_guard_end(mine)
    }
    var wiped = 0
    for _ in 0..<faults {
      let mapped = unsafe mmap(truncated, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file.descriptor.number, 0)
      try check(unsafe mapped == truncated, "mmap")
      unsafe sl_store8(truncated, 1)
      for offset in canaries where unsafe sl_load8(arena.base + offset) != 0xA5 {
        wiped += 1
        unsafe sl_store8(arena.base + offset, 0xA5)
      }
    }
    isOver.set(1)
    other.join()
    #expect(wiped == 0, "\(wiped) pages that had no guard were wiped in \(faults) faults")
    #expect(sl_guard_was_touched(ours) != 0)
  }

  /// When a guard has ended, its addresses may hold something else at once.
  @Test func `what takes an ended guard's place is not wiped by a handler that is late`() throws {
    let page = 4096
    let arena = try Mapping(anonymousBytes: page)
    let file = try MemoryFile(name: "guard", byteCount: page)
    try check(ftruncate(file.descriptor.number, 0) == 0, "ftruncate")
    let rounds = 200
    // 1: touch; 2: give it back.
    let step = SharedWord()
    let base = UInt(bitPattern: unsafe arena.base)
    let toucher = try Thread(name: "toucher") {
      for round in 1...UInt64(rounds) {
        while step.value < 2 * round - 1 { sched_yield() }
        // Before, during or after the guard's end: the second access hits whatever is there then.
        unsafe sl_store8(UnsafeMutableRawPointer(bitPattern: base)!, 1)
        step.set(2 * round)
      }
    }
    var wiped = 0
    for round in 1...UInt64(rounds) {
      unsafe _ = mmap(arena.base, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file.descriptor.number, 0)
      let slot = unsafe sl_guard(arena.base, page)
      step.set(2 * round - 1)
      // The toucher has its zeros once the guard says so; its handler may be inside still.
      while sl_guard_was_touched(slot) == 0 { sched_yield() }
      sl_guard_end(slot)
      unsafe _ = mmap(arena.base, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
      unsafe sl_store8(arena.base + 100, 0xA5)
      while step.value < 2 * round { sched_yield() }
      if unsafe sl_load8(arena.base + 100) != 0xA5 { wiped += 1 }
    }
    toucher.join()
    #expect(wiped == 0, "\(wiped) of \(rounds)")
  }
}
