import ArgumentParser

@main
struct Sluice: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sluice", abstract: "A zero-copy receive datapath for virtual machines.")
}
