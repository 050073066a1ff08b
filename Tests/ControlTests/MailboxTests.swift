import Glibc
import Linux
import Testing

@testable import Control

@Suite struct MailboxTests {
  private static let second: UInt64 = 1_000_000_000
  private var later: UInt64 { MonotonicClock.now() + 60 * Self.second }

  private final class Record: Sendable {
    private let entries = Mutex<[String]>([])
    func add(_ entry: String) { entries.withLock { $0.append(entry) } }
    var all: [String] { entries.withLock { $0 } }
  }

  @Test func `a command is done by the thread that serves, and its result comes back`() throws {
    let mailbox = try Mailbox()
    let isEnding = SharedWord()
    let thread = try Thread(name: "served") {
      while isEnding.value == 0 {
        mailbox.wakeUp.wait(milliseconds: 1000)
        mailbox.serve()
      }
    }
    let here = pthread_self()
    for number in 0..<1000 {
      let outcome = mailbox.perform(until: later) { (number * 2, pthread_equal(here, pthread_self()) == 0) }
      let (result, elsewhere) = try #require(outcome)
      #expect(result == number * 2)
      #expect(elsewhere)
    }
    #expect(!mailbox.isOverdue)
    isEnding.set(1)
    mailbox.wakeUp.signal()
    thread.join()
  }

  @Test func `serving without a command does nothing`() throws {
    let mailbox = try Mailbox()
    #expect(!mailbox.isPending)
    mailbox.serve()
    #expect(!mailbox.isPending)
  }

  @Test func `commands whose deadline has passed are executed later, in order, and what waits for them is called then`() throws {
    let (mailbox, record) = (try Mailbox(), Record())
    final class Kept: Sendable {}
    weak var object: Kept?
    for number in 0..<3 {
      let kept = Kept()
      object = kept
      // No thread serves: the deadline passes at once.
      let receipt = try #require(mailbox.send {
        withExtendedLifetime(kept) {}
        record.add("\(number)")
      })
      #expect(!mailbox.wait(for: receipt, until: MonotonicClock.now()))
      receipt.whenFinished { record.add("after \(number)") }
    }
    #expect(mailbox.perform(until: MonotonicClock.now()) { record.add("3") } == nil)
    #expect(mailbox.isOverdue && record.all.isEmpty)
    #expect(object != nil, "a queued command keeps its objects alive")
    mailbox.serve()
    #expect(record.all == ["0", "after 0", "1", "after 1", "2", "after 2", "3"])
    #expect(!mailbox.isOverdue)
    #expect(object == nil, "and lets them go when it was executed")
    let receipt = try #require(mailbox.send {})
    mailbox.serve()
    receipt.whenFinished { record.add("at once") }
    #expect(record.all.last == "at once")
  }

  @Test func `the queue is bounded, and a VM's last command has a place of its own`() throws {
    let mailbox = try Mailbox()
    var count = 0
    while mailbox.send({}) != nil { count += 1 }
    #expect(count == Mailbox.capacity - Mailbox.reserved)
    #expect(mailbox.perform(until: later) { 1 } == nil, "a full queue is not waited for")
    while mailbox.send(isLast: true, finishing: { $0.finish() }) != nil { count += 1 }
    #expect(count == Mailbox.capacity)
    mailbox.serve()
    #expect(mailbox.send {} != nil)
  }

  @Test func `a command may be finished later than it was executed, and by then only`() throws {
    let mailbox = try Mailbox()
    let given = Mutex<Receipt?>(nil)
    let receipt = try #require(mailbox.send(isLast: false) { receipt in given.withLock { $0 = receipt } })
    mailbox.serve()
    #expect(!receipt.isFinished && !mailbox.wait(for: receipt, until: MonotonicClock.now()))
    given.withLock { $0 }?.finish()
    #expect(receipt.isFinished && mailbox.wait(for: receipt, until: 0))
  }
}
