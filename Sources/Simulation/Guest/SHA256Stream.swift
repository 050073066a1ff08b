internal import CCrypto

/// A SHA-256 over bytes that come piece by piece. FIPS 180-4; the work is libcrypto's.
///
/// `@safe`: the context is its own, made here and freed here, and every call that takes it is below.
@safe public struct SHA256Stream: ~Copyable {
  private let context: OpaquePointer

  public init() {
    guard let context = unsafe EVP_MD_CTX_new() else { fatalError("libcrypto has no memory for a digest") }
    guard unsafe EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1 else { fatalError("libcrypto has no SHA-256") }
    unsafe self.context = context
  }

  deinit { unsafe EVP_MD_CTX_free(context) }

  /// Takes in the next bytes.
  public mutating func update(_ bytes: UnsafeRawBufferPointer) {
    guard let start = bytes.baseAddress, bytes.count > 0 else { return }
    guard unsafe EVP_DigestUpdate(context, start, bytes.count) == 1 else { fatalError("libcrypto refused bytes") }
  }

  /// Takes in a frame so that two streams are equal only if their frames are: its length, as four bytes
  /// from the lowest on, then its bytes.
  public mutating func update(frame bytes: UnsafeRawBufferPointer) {
    var length = UInt32(bytes.count).littleEndian
    unsafe withUnsafeBytes(of: &length) { unsafe update($0) }
    unsafe update(bytes)
  }

  /// The digest of everything taken in.
  public consuming func finish() -> SHA256Digest {
    digestSoFar()
  }

  /// The digest of everything taken in until now; more may follow.
  public borrowing func digestSoFar() -> SHA256Digest {
    guard let copy = unsafe EVP_MD_CTX_new() else { fatalError("libcrypto has no memory for a digest") }
    defer { unsafe EVP_MD_CTX_free(copy) }
    var bytes = [UInt8](repeating: 0, count: SHA256Digest.byteCount)
    let isDone = unsafe EVP_MD_CTX_copy_ex(copy, context) == 1 && EVP_DigestFinal_ex(copy, &bytes, nil) == 1
    guard isDone else { fatalError("libcrypto could not finish a digest") }
    return SHA256Digest(bytes: bytes)
  }
}

/// What a SHA-256 comes to.
public struct SHA256Digest: Hashable, Sendable, CustomStringConvertible {
  public static let byteCount = 32
  /// 32 of them.
  public let bytes: [UInt8]

  /// In hexadecimal, 64 digits.
  public var description: String {
    bytes.map { byte in
      let digits = String(byte, radix: 16)
      return digits.count == 1 ? "0" + digits : digits
    }.joined()
  }
}
