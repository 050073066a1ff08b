import Simulation
import Testing

@Suite struct GuestDigestTests {
  @Test(arguments: [
    ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"),
  ]) func `SHA-256 of the standard's examples`(text: String, digest: String) {
    var whole = SHA256Stream()
    var pieces = SHA256Stream()
    let bytes = [UInt8](text.utf8)
    whole.take(bytes)
    for byte in bytes { pieces.take([byte]) }
    #expect("\(pieces.digestSoFar())" == digest)
    let digests = [whole.finish(), pieces.finish()].map { "\($0)" }
    #expect(digests == [digest, digest])
  }

  @Test func `frames split otherwise give another digest`() {
    var one = SHA256Stream()
    var two = SHA256Stream()
    for frame: [UInt8] in [[1, 2, 3], [4]] { one.take(frame: frame) }
    for frame: [UInt8] in [[1, 2], [3, 4]] { two.take(frame: frame) }
    let digests = (one.finish(), two.finish())
    #expect(digests.0 != digests.1)
  }
}
