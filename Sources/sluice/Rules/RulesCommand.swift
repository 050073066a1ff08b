import ArgumentParser

/// `sluice rules`: which frame goes to whom.
struct RulesCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rules",
    abstract: "Write, check and explain the rules that say which frame goes to which VM.",
    discussion: """
      A rule is one line:
        [id N] [group N] [prio N] [for VM] match FIELD=VALUE... then ACTION, ...

      FIELD   eth.dst eth.src eth.type vlan.id vlan.pcp ip.src ip.dst ip.proto
              ip.tos ip.frag tcp.src tcp.dst tcp.flags udp.src udp.dst
              sctp.src sctp.dst flex@OFFSET; or "match any"
      VALUE   exact, /PREFIX or /MASK (1 = compared), A-B for ports, none for
              vlan.id
      ACTION  vm NAME[:QUEUE] (several: a copy each), queue N, drop, count

      Two steps, as cards take them. Rules that look at the Ethernet header alone say whose a frame is. Then, for each \
      VM that it is for, or once if it is nobody's, the other rules say what becomes of it; "for VM" lets a rule see \
      that VM's frames only. The lowest priority is asked first (as with tc and rte_flow); what a VM's own address and \
      VLAN say comes last.

      Rules of ethtool, testpmd's flow and tc's flower are taken as they are, wherever a rule may stand.

      Examples:
        sluice rules validate --rules site.rules --vm dns --vm web
        sluice rules explain trace.pcap#17 --rules site.rules
        sluice rules test trace.pcap --rules site.rules
        sluice rules apply site.rules --dry-run
        sluice rules add 'match eth.type=ip udp.dst=53 then vm dns'
        sluice rules list
      """,
    subcommands: [
      RulesAdd.self, RulesDelete.self, RulesFlush.self, RulesList.self, RulesShow.self, RulesApply.self, RulesImport.self,
      RulesExport.self, RulesValidate.self, RulesExplain.self, RulesTest.self, RulesCapabilities.self,
    ])
}
