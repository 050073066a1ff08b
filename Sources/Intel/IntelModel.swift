public import FlowTables

/// A kind of card that there is a driver for, by what it says on the bus.
public enum IntelModel: String, CaseIterable, Sendable {
  case intel82599 = "82599"
  case intel82576 = "82576"
  case intelI350 = "I350"
  /// A virtual function of the 82576.
  case intel82576VF = "82576 VF"

  /// Nil: a card that nothing here knows.
  public init?(vendor: UInt16, device: UInt16) {
    guard vendor == 0x8086, let model = Self.allCases.first(where: { $0.devices.contains(device) }) else { return nil }
    self = model
  }

  /// Device numbers: by the kind of wire.
  var devices: [UInt16] {
    switch self {
    case .intel82599: [0x10F7, 0x10F8, 0x10F9, 0x10FB, 0x10FC, 0x1507, 0x1514, 0x1517, 0x1529, 0x152A, 0x154A, 0x154D, 0x1557, 0x1558]
    case .intel82576: [0x10C9, 0x10E6, 0x10E7, 0x10E8, 0x150A, 0x150D, 0x1518, 0x1526]
    case .intelI350: [0x1521, 0x1522, 0x1523, 0x1524]
    case .intel82576VF: [0x10CA, 0x152D]
    }
  }

  public var profile: CardProfile {
    switch self {
    case .intel82599: .intel82599
    case .intel82576: .intel82576
    case .intelI350: .intelI350
    case .intel82576VF: .intel82576VF
    }
  }
}
