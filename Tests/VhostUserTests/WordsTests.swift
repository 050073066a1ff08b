import GuestMemory
import Linux
import Testing
import VhostUser
import Virtio

/// What an operator reads.
@Suite struct WordsTests {
  @Test func `requests have the specification's names`() {
    let names = Request.allCases.map(\.description)
    #expect(Request.allCases.map(\.rawValue) == Array(1...44))
    for (id, name) in [(1, "GET_FEATURES"), (8, "SET_VRING_NUM"), (15, "GET_PROTOCOL_FEATURES"), (22, "IOTLB_MSG"), (26, "CREATE_CRYPTO_SESSION"),
      (31, "GET_INFLIGHT_FD"), (34, "RESET_DEVICE"), (38, "REM_MEM_REG"), (39, "SET_STATUS"), (44, "GET_SHMEM_CONFIG")] {
      #expect(names[id - 1] == name)
    }
    #expect(Set(names).count == 44)
  }

  @Test func `features and protocol features are told by name`() {
    #expect(Features([.version1, .mergeableBuffers]).text == "MRG_RXBUF VERSION_1")
    #expect(Features([]).text == "none")
    #expect(Features(rawValue: 1 << 45 | 1 << 39).text == "NOTIF_CONFIG_DATA bit_45")
    #expect(ProtocolFeatures([.mq, .configureMemSlots]).description == "MQ CONFIGURE_MEM_SLOTS")
  }

  @Test func `a line for each change, with its numbers`() throws {
    let (frontend, guest) = (try Frontend(), try TestGuest())
    frontend.run(guest)
    frontend.send(ID.setNum, state(1, 128))
    frontend.backend.fault(ring: 0, RingRefusal("head 300 is no descriptor of this queue"))
    frontend.close()
    frontend.turn()
    let lines = frontend.events.map(\.description)
    #expect(
      lines == [
        "front-end connected",
        "features PROTOCOL_FEATURES VERSION_1; protocol features MQ LOG_SHMFD RARP REPLY_ACK NET_MTU BACKEND_REQ INFLIGHT_SHMFD RESET_DEVICE CONFIGURE_MEM_SLOTS",
        "guest memory: 2 regions, 2097152 bytes; 2 could be truncated by the front-end",
        "ring 0 enabled",
        "ring 0 started: 256 entries, split, base 0, enabled",
        "ring 1 enabled",
        "ring 1 started: 256 entries, split, base 0, enabled",
        "message refused: SET_VRING_NUM: ring 1 runs; stop it first",
        "ring 0 stopped at 0",
        "ring 0 cannot run: head 300 is no descriptor of this queue",
        "ring 1 stopped at 0",
        "no guest memory",
        "front-end disconnected: closed by the front-end",
      ])
  }

  @Test func `a region for what is in flight is told with its rings, and whether it was another program's`() {
    #expect("\(Event.inflight(ringCount: 4, wasForeign: false))" == "what is in flight is kept by the front-end, for 4 rings")
    #expect(
      "\(Event.inflight(ringCount: 2, wasForeign: true))"
        == "what is in flight is kept by the front-end, for 2 rings; what another program left there means nothing here")
  }

  @Test func `a refusal names the message and the numbers`() {
    #expect("\(MessageError.wrongSize(.setVringNum, 7, expected: 8))" == "SET_VRING_NUM: a payload of 7 bytes, not 8")
    #expect("\(MessageError.wrongDescriptorCount(.remMemReg, 2, expected: 0...1))" == "REM_MEM_REG: 2 descriptors, not 0 to 1")
    #expect("\(MessageError.wrongDescriptor(.addMemReg, .pipe, needed: .memory))" == "ADD_MEM_REG: a pipe came, not a file of shared memory or huge pages that can be read and written")
    #expect(
      "\(MessageError.badInflight(rings: 5, size: 0, limit: 4))"
        == "a region for what is in flight in 5 rings of 0 entries; must be 1 to 4 rings, of 1 to 32768")
    #expect(
      "\(MessageError.badInflightPlace(byteCount: 8192, offset: 512, fileBytes: 4096, needed: 5000))"
        == "SET_INFLIGHT_FD: 8192 bytes from 512 on, in a file of 4096: not 5000 on a whole page")
    #expect("\(MessageError.featuresNotOffered(1 << 17))" == "SET_FEATURES: CTRL_VQ was not offered")
    #expect(
      "\(MessageError.badRing(3, .misaligned(.device, GuestAddress(0x1002), alignment: 4)))"
        == "ring 3: device area at 0x1002 is not aligned to 4 bytes")
  }
}
