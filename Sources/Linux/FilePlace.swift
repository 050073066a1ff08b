/// A place in a file that somebody else keeps open.
public struct FilePlace: Hashable, Sendable {
  /// The descriptor.
  public let number: CInt
  /// Bytes from the file's beginning.
  public let offset: Int
  public init(number: CInt, offset: Int) { (self.number, self.offset) = (number, offset) }
}
