import Bus
import Testing

@testable import VFIO

/// Lines as kernels wrote them.
@Suite struct FaultLogTests {
  private let card = PCIAddress(bus: 1, device: 0, function: 0)

  @Test(arguments: [
    "3,478,26163102,-;DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x23ef10e000 [fault reason 0x05] PTE Write access is not set\n",
    "3,478,26163102,-;DMAR: [DMA Write NO_PASID] Request device [0000:01:00.0] fault addr 0x23ef10e000 [fault reason 0x05] PTE Write access is not set\n SUBSYSTEM=pci\n",
    "3,478,26163102,-;vfio-pci 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:01:00.0 domain=0x0011 address=0x23ef10e000 flags=0x0020]\n",
  ]) func `an access that was refused is told with its address`(record: String) throws {
    let fault = try #require(IOMMUFaultLog.parse(record, of: card))
    #expect(fault.address == IOVA(0x23_EF10_E000))
    #expect(record.contains(";\(fault.text)\n"))
  }

  @Test(arguments: [
    "3,478,26163102,-;DMAR: [DMA Write NO_PASID] Request device [01:00.1] fault addr 0x23ef10e000 [fault reason 0x05]\n",
    "3,478,26163102,-;DMAR: [DMA Write NO_PASID] Request device [0001:01:00.0] fault addr 0x23ef10e000 [fault reason 0x05]\n",
    "3,477,26163000,-;DMAR: DRHD: handling fault status reg 2\n", "12,1,1,-;somebody writes of Request device [01:00.0] fault addr 0x1000\n",
    "3,478,1,-;DMAR: Request device [01:00.0] fault addr 0x\n", "no record", "",
  ]) func `what is of another, or of something else, is no fault of this card's`(record: String) {
    #expect(IOMMUFaultLog.parse(record, of: card) == nil)
  }
}
