/// Masks whose bits that are set are the first ones of a value.
package enum Prefix {
  /// - Parameter length: at most `width`.
  package static func mask(_ length: Int, width: Int) -> UInt128 {
    let full: UInt128 = width == 128 ? .max : 1 << UInt128(width) - 1
    return length == 0 ? 0 : full << UInt128(width - length) & full
  }
  /// Nil for a mask that is none.
  package static func length(_ mask: UInt128, width: Int) -> Int? {
    let length = mask.nonzeroBitCount
    return self.mask(length, width: width) == mask ? length : nil
  }
}
