import Glibc
import Linux
import Synchronization
import Testing

@testable import Control

@Suite struct MailboxTests {
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
      let (result, elsewhere) = mailbox.perform { (number * 2, pthread_equal(here, pthread_self()) == 0) }
      #expect(result == number * 2)
      #expect(elsewhere)
    }
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
}
