internal import CNuma

/// On which memory node things lie, by libnuma. A machine without nodes has one, number 0.
public enum NUMA {
  public static var isAvailable: Bool { numa_available() >= 0 }

  /// How many nodes there are, at least one.
  public static var nodeCount: Int { isAvailable ? Int(numa_max_node()) + 1 : 1 }

  /// The node next to a processor, or nil where that cannot be told.
  public static func node(ofProcessor number: Int) -> Int? {
    guard isAvailable else { return nil }
    let node = numa_node_of_cpu(CInt(number))
    return node < 0 ? nil : Int(node)
  }

  /// The node that a page lies on, or nil if it was never touched or the machine does not say.
  public static func node(ofPageAt address: UnsafeMutableRawPointer) -> Int? {
    guard isAvailable else { return nil }
    var page: UnsafeMutableRawPointer? = unsafe address
    var status: CInt = -1
    guard unsafe numa_move_pages(0, 1, &page, nil, &status, 0) == 0, status >= 0 else { return nil }
    return Int(status)
  }

  /// How far a node's processors are from another's memory, as the firmware says: 10 is the node itself, 20 twice as far.
  public static func distance(_ node: Int, _ other: Int) -> Int {
    isAvailable ? Int(numa_distance(CInt(node), CInt(other))) : 10
  }

  /// Has the calling thread run on a node's processors only, and with it what the thread allocates come from there. False
  /// if the machine refuses.
  @discardableResult public static func run(onNode node: Int) -> Bool {
    isAvailable && node >= 0 && numa_run_on_node(CInt(node)) == 0
  }

  /// Calls `body` with the calling thread's new pages taken from a node, where there is room: for memory that a thread
  /// elsewhere will use.
  ///
  /// - Parameter node: nil if it does not matter.
  public static func preferring<Result: ~Copyable, Failure: Error>(
    node: Int?, _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    guard let node, node >= 0, nodeCount > 1, node < nodeCount else { return try body() }
    numa_set_preferred(CInt(node))
    defer { numa_set_localalloc() }
    return try body()
  }

  /// Asks that the pages of a mapping that nobody has touched yet come from one node.
  public static func prefer(node: Int, for mapping: borrowing Mapping) {
    guard isAvailable, node < nodeCount else { return }
    unsafe numa_tonode_memory(mapping.base, mapping.byteCount, CInt(node))
  }
}
