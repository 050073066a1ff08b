public import CLinux

/// A device's 32-bit registers, by byte offset: a seam between a BAR of the machine and a model.
///
/// Used at set-up and for statistics. What is written once a batch goes through a `Doorbell` instead.
public protocol RegisterFile: AnyObject {
  /// Where its offset 0 lies among the device's registers: for words.
  var firstOffset: Int { get }
  func read(_ offset: Int) -> UInt32
  func write(_ value: UInt32, _ offset: Int)
  /// One register that takes plain stores from now on: a ring's tail.
  func doorbell(_ offset: Int) -> Doorbell
}

/// A register that is written once a batch: the same machine code on a BAR and on a model.
///
/// `@safe`: made from an aligned register of a mapping that its maker keeps while the device is in use.
@safe @frozen public struct Doorbell: @unchecked Sendable {
  @usableFromInline let register: UnsafeMutableRawPointer

  /// - Parameter register: 4-byte aligned; stays mapped while the device that it belongs to is in use.
  public init(unsafe register: UnsafeMutableRawPointer) { unsafe self.register = register }

  /// Stores the value after every earlier store to memory: the device that sees it sees the descriptors too.
  @inlinable public func ring(_ value: UInt32) { unsafe sl_mmio_write32(register, value) }
}

/// A register with a name: where it lies, and its fields.
///
///     struct RXDCTL: Register32 {
///       static func offset(_ n: Int) -> Int { … }
///       var rawValue: UInt32
///       var isEnabled: Bool { get { self[bit: 25] } set { self[bit: 25] = newValue } }
///     }
public protocol Register32 {
  /// The byte offset of the n-th register of this name.
  static func offset(_ n: Int) -> Int
  var rawValue: UInt32 { get set }
  init(rawValue: UInt32)
}

extension Register32 {
  public subscript(bit number: Int) -> Bool {
    get { rawValue >> UInt32(number) & 1 == 1 }
    set { rawValue = rawValue & ~(1 << UInt32(number)) | (newValue ? 1 << UInt32(number) : 0) }
  }
  /// A field by its lowest and highest bit. A value too large for it is a mistake of ours.
  public subscript(bits range: ClosedRange<Int>) -> UInt32 {
    get { rawValue >> UInt32(range.lowerBound) & Self.mask(range.count) }
    set {
      let mask = Self.mask(range.count)
      precondition(newValue <= mask, "\(newValue) does not fit in bits \(range)")
      rawValue = rawValue & ~(mask << UInt32(range.lowerBound)) | newValue << UInt32(range.lowerBound)
    }
  }
  private static func mask(_ width: Int) -> UInt32 { width == 32 ? .max : 1 << UInt32(width) - 1 }
}

extension RegisterFile {
  public var firstOffset: Int { 0 }
  public func read<R: Register32>(_ register: R.Type, _ n: Int = 0) -> R { R(rawValue: read(R.offset(n))) }
  public func write<R: Register32>(_ value: R, _ n: Int = 0) { write(value.rawValue, R.offset(n)) }
  /// One load and one store; the other bits stay as they are.
  public func modify<R: Register32>(_ register: R.Type, _ n: Int = 0, _ body: (inout R) -> Void) {
    var value = read(register, n)
    body(&value)
    write(value, n)
  }

  /// Looks at a register until it is as wanted, every 10 µs, for so long.
  public func wait<R: Register32>(
    for register: R.Type, _ n: Int = 0, within limit: Duration, on clock: any Timekeeper,
    until condition: (R) -> Bool
  ) throws(RegisterError) {
    let nanoseconds = UInt64(limit / .nanoseconds(1))
    let deadline = clock.now + nanoseconds
    while true {
      let value = read(register, n)
      // A device that has gone answers all ones: that is an answer of the bus, not of the register.
      if value.rawValue != .max, condition(value) { return }
      if clock.now >= deadline {
        throw RegisterError(
          name: "\(R.self)", number: n, offset: firstOffset + R.offset(n), value: value.rawValue, waited: nanoseconds)
      }
      clock.pause(nanoseconds: 10_000)
    }
  }
}

/// A register that did not become what it must.
public struct RegisterError: Error, Hashable, Sendable, CustomStringConvertible {
  public let name: String
  public let number: Int
  public let offset: Int
  /// What it read at the end.
  public let value: UInt32
  /// Nanoseconds.
  public let waited: UInt64

  public init(name: String, number: Int, offset: Int, value: UInt32, waited: UInt64) {
    (self.name, self.number, self.offset, self.value, self.waited) = (name, number, offset, value, waited)
  }

  public var description: String {
    "register \(name)[\(number)] at 0x\(String(offset, radix: 16)) still reads 0x\(String(value, radix: 16)) after \(waited / 1000) µs"
  }
}

/// Some of a device's registers, counted from the first of them: a set that the device has several times.
public final class RegisterBlock: RegisterFile {
  private let registers: any RegisterFile
  private let start: Int

  public init(_ registers: any RegisterFile, from start: Int) { (self.registers, self.start) = (registers, start) }

  public var firstOffset: Int { registers.firstOffset + start }
  public func read(_ offset: Int) -> UInt32 { registers.read(start + offset) }
  public func write(_ value: UInt32, _ offset: Int) { registers.write(value, start + offset) }
  public func doorbell(_ offset: Int) -> Doorbell { registers.doorbell(start + offset) }
}

/// The registers of a device as mapped memory: a BAR.
///
/// `@safe`: offsets are checked against the length; whoever makes it keeps the mapping while this lives.
@safe public final class MappedRegisters: RegisterFile {
  private let base: UnsafeMutableRawPointer
  /// Bytes.
  public let byteCount: Int

  public init(unsafe base: UnsafeMutableRawPointer, byteCount: Int) {
    unsafe self.base = base
    self.byteCount = byteCount
  }

  private func check(_ offset: Int) {
    precondition(offset >= 0 && offset & 3 == 0 && offset <= byteCount - 4, "no register at \(offset)")
  }
  public func read(_ offset: Int) -> UInt32 {
    check(offset)
    return unsafe sl_mmio_read32(base + offset)
  }
  public func write(_ value: UInt32, _ offset: Int) {
    check(offset)
    unsafe sl_mmio_write32(base + offset, value)
  }
  public func doorbell(_ offset: Int) -> Doorbell {
    check(offset)
    return unsafe Doorbell(unsafe: base + offset)
  }
}
