import Linux
import Testing

@testable import Control

@Suite struct ControlLoopTests {
  /// What happened, in order.
  private final class Record: Sendable {
    private let entries = Mutex<[String]>([])
    func add(_ entry: String) { entries.withLock { $0.append(entry) } }
    var all: [String] { entries.withLock { $0 } }
  }

  @Test func `timers fire in the order of their moments, and a forgotten one does not`() throws {
    let (loop, record) = (try ControlLoop(), Record())
    loop.after(milliseconds: 20) {
      record.add("second")
      loop.end()
    }
    loop.after(milliseconds: 1) { record.add("first") }
    loop.forget(loop.after(milliseconds: 5) { record.add("forgotten") })
    loop.run()
    #expect(record.all == ["first", "second"])
  }

  @Test func `work that other threads give is done, each once, until the end; after it nothing is taken`() throws {
    let (loop, record) = (try ControlLoop(), Record())
    let thread = try Thread(name: "poster") {
      for number in 0..<100 { loop.post { record.add("\(number)") } }
      loop.post { loop.end() }
    }
    loop.run()
    thread.join()
    #expect(record.all == (0..<100).map { "\($0)" })
    #expect(!loop.post { record.add("late") })
    #expect(record.all.count == 100)
  }

  @Test func `a descriptor that becomes readable is told until it is no longer watched`() throws {
    let (loop, record, event) = (try ControlLoop(), Record(), Event(try EventDescriptor()))
    var token: UInt64 = 0
    token = try loop.watch(event.descriptor.descriptor.number) { ready in
      #expect(ready.isReadable)
      record.add("told")
      if record.all.count == 3 {
        loop.unwatch(event.descriptor.descriptor.number, token: token)
        loop.after(milliseconds: 5) { loop.end() }
      }
    }
    event.descriptor.signal()
    loop.run()
    #expect(record.all.count == 3)
  }
  private final class Event {
    let descriptor: EventDescriptor
    init(_ descriptor: consuming EventDescriptor) { self.descriptor = descriptor }
  }
}
