// The attackers, each in a process of its own. They tell the judge what they do by lines on standard output:
//   armed            what the attack needs is prepared; a line on standard input starts it
//   fired            the attack was made, or runs from now on until the process is killed
//   refused WHAT     the back-end refused what the attack needs: a limit, not a fault
//   skipped WHY      this machine cannot make the attack
//   value NUMBER     a figure for the judge
#ifndef ATTACKERS_H
#define ATTACKERS_H
// words: the attack's name, the folder of sockets (a, b, c, …, control), a seed, and the attack's own arguments.
int attack(int count, char **words);
#endif
