// The stage of an attack: a `sluice run` of its own, what is measured of it, and the processes that attack it.
#ifndef STAGE_H
#define STAGE_H
#include "peer.h"
#include <stdatomic.h>
#include <sys/types.h>

// What the judge was given.
struct settings { const char *sluice, *folder; uint64_t seed; bool quick; int worker_cpu, other_cpu; };
extern struct settings settings;
const char *in_folder(const char *name);

// --- the back-end ---

struct stage_options {
  int vms;                   // a, b, c, …; VM n has the address 02:00:00:00:00:n
  const char *of_vm;         // appended to each --vm
  const char *extra[8];      // more options
  bool has_vlans;            // VLAN 100 for a and c, 200 for b
  unsigned soft_limit;       // RLIMIT_NOFILE, or 0
};
// Starts it and waits until it says that it is ready. Returns 0, or its exit status (or 256 if it did not get ready).
int stage_start(const struct stage_options *options);
// Ends it by SIGTERM, and by SIGKILL after 3 s. Returns its exit status, 256 + signal if one killed it, or -1 if it had to be killed.
int stage_end(double *seconds);
bool stage_is_alive(void);
// True if the control socket answers within so many seconds.
bool stage_recovers(double seconds);
pid_t stage_pid(void);
// Reads a metric from /metrics; lines that begin with `name` are added up. NaN if there is none.
double stage_metric(const char *name);
// The last lines of the log.
void stage_print_log(void);

// --- how it answers others: probes run while a stage runs ---

struct answers {
  double silence;            // longest time without WATCHDOG=1, in seconds
  double health, message;    // longest time until the control socket and another VM's messages were answered
  bool cut;                  // the other VM lost its connection, or was refused
};
// Starts the probes at VM `name`, which gets an idle receive ring.
void probes_start(const char *name);
void probes_stop(void);
void probes_reset(void);
struct answers probes_read(void);
// True if a probe has waited for its answer for more than 0.2 s.
bool probes_wait(void);

// --- the victim: VM a, which receives ---

struct sample { double rate, gap; uint64_t frames; double disturbed; };
bool victim_start(void);
void victim_stop(void);
// Measures for so many seconds. The rate is in frames per second of the time in which the victim polled and the worker did not wait
// for a processor; the gap is the time from one delivery to the next that 99.9 % of them do not exceed, in seconds.
struct sample victim_measure(double seconds);
uint64_t victim_frames(void);
// Puts frames for a VM on the wire, as fast as it takes them, until it is stopped.
bool inject_start(char vm);
void inject_stop(void);
// Injects the trace's frames for a VM so many times, and waits for the report. Returns how many were sent, or -1.
long inject_all(char vm, const char *speed, long loops, double timeout);
enum { trace_frames = 500 };

// --- attackers ---

struct attacker { pid_t pid; int from, to; char line[200]; };
// Starts one. `nice` is added to its priority, so that it takes no processor time from the victim.
struct attacker attacker_start(int nice, ...) __attribute__((sentinel));
// Waits for a line that begins with `word`, or with "refused" or "skipped". Returns that line, or "" after so many seconds.
const char *attacker_wait(struct attacker *a, const char *word, double seconds);
void attacker_go(struct attacker *a);
void attacker_end(struct attacker *a);

// Runs a program; its standard output and error go to `output` in the folder. Returns the status, or -1 after so many seconds.
int run_program(char *const words[], const char *output, double seconds);
#endif
