// What is not known is null rather than left out: a reader need not ask whether a key is there.

extension BenchmarkReport.Machine {
  public func encode(to encoder: any Encoder) throws {
    var keys = encoder.container(keyedBy: CodingKeys.self)
    try keys.encode(processor, forKey: .processor)
    try keys.encode(processors, forKey: .processors)
    try keys.encode(kernel, forKey: .kernel)
    try keys.encode(memory_bytes, forKey: .memory_bytes)
    try keys.encode(caches, forKey: .caches)
    try keys.encode(huge_pages, forKey: .huge_pages)
    try keys.encode(governor, forKey: .governor)
    try keys.encode(is_virtual, forKey: .is_virtual)
    try keys.encode(sluice, forKey: .sluice)
    try keys.encode(swift, forKey: .swift)
    try keys.encode(optimised, forKey: .optimised)
  }
}

extension BenchmarkReport.Part {
  public func encode(to encoder: any Encoder) throws {
    var keys = encoder.container(keyedBy: CodingKeys.self)
    try keys.encode(section, forKey: .section)
    try keys.encode(frames, forKey: .frames)
    try keys.encode(distance, forKey: .distance)
    try keys.encode(ping_ns, forKey: .ping_ns)
    try keys.encode(points, forKey: .points)
  }
}

extension BenchmarkReport.Measured {
  public func encode(to encoder: any Encoder) throws {
    var keys = encoder.container(keyedBy: CodingKeys.self)
    try keys.encode(series, forKey: .series)
    try keys.encode(label, forKey: .label)
    try keys.encode(x, forKey: .x)
    try keys.encode(figures, forKey: .figures)
    try keys.encode(ratio, forKey: .ratio)
    try keys.encode(set_aside, forKey: .set_aside)
    try keys.encode(other_distance, forKey: .other_distance)
    try keys.encode(dropped, forKey: .dropped)
    try keys.encode(dropped_by, forKey: .dropped_by)
    try keys.encode(refused, forKey: .refused)
    try keys.encode(replay, forKey: .replay)
  }
}
