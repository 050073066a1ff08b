// What the tools in this folder share, beside what `Benchmark` has.
import Foundation

/// A program that ends by itself.
public enum Program {
  /// Runs it, found as a shell finds it, until it has ended; answers how, and what it wrote to either stream.
  public static func run(_ words: [String]) throws -> (status: Int32, output: String) {
    let (process, pipe) = (Process(), Pipe())
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = words
    (process.standardOutput, process.standardError) = (pipe, pipe)
    try process.run()
    let output = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return (process.terminationStatus, output)
  }
}

/// In columns; a text that is too long stays whole.
public func leftPadded(_ text: String, to width: Int) -> String { String(repeating: " ", count: max(0, width - text.count)) + text }
public func rightPadded(_ text: String, to width: Int) -> String { text + String(repeating: " ", count: max(0, width - text.count)) }
