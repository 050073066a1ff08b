import ArgumentParser

/// `sluice completion SHELL`: what makes the shell complete our options.
struct CompletionCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "completion", abstract: "Print the completion script of a shell.",
    discussion: """
      bash   sluice completion bash > ~/.local/share/bash-completion/completions/sluice
      zsh    sluice completion zsh > "${fpath[1]}/_sluice"
      fish   sluice completion fish > ~/.config/fish/completions/sluice.fish
      """)

  @Argument(help: "bash, zsh or fish.", completion: .list(["bash", "zsh", "fish"]))
  var shell: String

  func run() throws {
    guard let shell = CompletionShell(rawValue: shell) else {
      throw Failure.usage("completion", shell, "no such shell; there are bash, zsh and fish")
    }
    try StandardStream.output.write(Sluice.completionScript(for: shell) + "\n")
  }
}
