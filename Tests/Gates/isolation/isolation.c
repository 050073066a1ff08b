// isolation list [--quick]
// isolation run NAME --sluice PROGRAM --folder FOLDER [--seed N] [--quick] [--guard PROGRAM]
// isolation attack …            (an attacker's process: attackers.h)
//
// The judge of Tests/Gates/isolation.sh: starts `sluice run` with honest VMs, has one of them attack, and measures what the others
// lose. Prints a line for each figure, its fields between tabs: row, attack, adversary, what, limit, value, verdict (ok, BROKEN or
// skipped), note.
//
// How timing is kept fair on a busy machine: the worker has a processor of its own, and the victim goes ahead of attackers, for it is the
// back-end that is judged and not Linux's scheduler. Time in which a thread was ready to run and waited for a processor is taken off.
// Shares are ratios of windows that follow each other, of which the median counts.
#include "attackers.h"
#include "stage.h"

#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

// --- limits ---

static const double answer_limit = 0.050;    // another VM's message, and the control socket, in seconds
static const double silence_limit = 1.0;     // without WATCHDOG=1, in seconds
static const double share_limit = 0.45;      // of the worker, while the attacker asks for all of it
static const double gap_limit = 2.0;         // times the gap beside an honest VM that asks for as much as it can
static const double gap_floor = 0.0002;      // seconds: the victim naps between two polls, and timers are not better
static double slack = 1;                    // what times and rates may miss their limits by: see isolation.sh, --slack
static const double inflight_limit = 16 << 20; // bytes, for 600 requests

struct attack_entry { const char *name, *adversary, *what; bool quick; void (*run)(const struct attack_entry *); const void *details; };
static const struct attack_entry *current;
static const char *guard_program;

__attribute__((format(printf, 5, 6)))
static void row(const char *what, const char *limit, const char *verdict, const char *note, const char *format, ...) {
  va_list list;
  printf("row\t%s\t%s\t%s\t%s\t", current->name, current->adversary, what, limit);
  va_start(list, format), vprintf(format, list), va_end(list);
  printf("\t%s\t%s\n", verdict, note), fflush(stdout);
}
static const char *verdict(bool holds) { return holds ? "ok" : "BROKEN"; }
static void skip(const char *why) { row("-", "-", "skipped", why, "-"); }

static void show_answers(struct answers a, const char *note) {
  bool cut = a.cut;
  row("another VM's message, longest", "50 ms", verdict(!cut && a.message <= answer_limit * slack), note, cut ? "%.0f ms, and cut off" : "%.0f ms", a.message * 1e3);
  row("status and health, longest", "50 ms", verdict(a.health <= answer_limit * slack), note, "%.0f ms", a.health * 1e3);
  row("longest without a sign of life", "1 s", verdict(a.silence < silence_limit * slack), note, "%.2f s", a.silence);
}

static bool begin(const struct stage_options *o) {
  int status = stage_start(o);
  if (status == 0) return true;
  char note[100];
  snprintf(note, sizeof note, "sluice run ended with status %d before the attack", status);
  stage_print_log();
  row("sluice run starts", "yes", "BROKEN", note, "no");
  return false;
}
// Ends the stage. A back-end that died under attack, or does not end by SIGTERM, is a broken limit of its own.
static void finish(void) {
  bool alive = stage_is_alive();
  int status = stage_end(NULL);
  if (!alive || status != 0) {
    stage_print_log();
    row("sluice run survives, and ends by SIGTERM", "status 0", "BROKEN", "", status < 0 ? "does not end" : "status %d", status);
  }
}

// Whether `sluice run` knows an option or key.
static bool knows(const char *word) {
  char *words[] = {(char *)(uintptr_t)settings.sluice, "run", "--help", NULL}, text[32768] = {0};
  run_program(words, "help", 10);
  FILE *f = fopen(in_folder("help"), "r");
  if (f) { if (!fread(text, 1, sizeof text - 1, f)) text[0] = 0; fclose(f); }
  return strstr(text, word) != NULL;
}

// --- attacks of one moment: what others wait for after it ---

struct variant { const char *words[4]; bool quick; };
struct moment { const struct variant *variants; double shortest; int soft_limit; const char *of_vm; };

static void run_moment(const struct attack_entry *entry) {
  const struct moment *m = entry->details;
  struct stage_options options = {.vms = 3, .of_vm = m->of_vm};
  struct answers worst = {0};
  char note[160] = "";
  int made = 0, refusals = 0;
  char refusal[160] = "";
  double worst_time = -1;
  if (!begin(&options)) return;
  probes_start("c");
  for (const struct variant *v = m->variants; v->words[0]; v++) {
    if (settings.quick && !v->quick) continue;
    struct attacker a = attacker_start(0, v->words[0], v->words[1], v->words[2], v->words[3], NULL);
    const char *line = attacker_wait(&a, "armed", 40);
    if (!strncmp(line, "skipped", 7)) { if (!made) snprintf(note, sizeof note, "%s", line + 8); attacker_end(&a); continue; }
    if (strcmp(line, "armed")) refusals++, snprintf(refusal, sizeof refusal, "%s: %s", v->words[1] ? v->words[1] : v->words[0], line[0] ? line : "not prepared in time");
    probes_reset();
    attacker_go(&a);
    double start = now();
    struct answers last;
    // Until every probe is answered again.
    do pause_for(0.02); while (now() - start < m->shortest || (now() - start < 2.5 && probes_wait()));
    last = probes_read();
    made++;
    double time = fmax(last.health, fmax(last.message, last.silence - 0.2));
    if (last.cut) time += 10;
    if (getenv("ISOLATION_VERBOSE")) fprintf(stderr, "%s %s: %s; message %.0f ms%s, health %.0f ms, silence %.2f s\n", v->words[0], v->words[1] ? v->words[1] : "", line, last.message * 1e3, last.cut ? ", cut" : "", last.health * 1e3, last.silence);
    if (time > worst_time) worst_time = time, snprintf(note, sizeof note, "worst: %s", v->words[1] ? v->words[1] : v->words[0]);
    worst.health = fmax(worst.health, last.health), worst.message = fmax(worst.message, last.message), worst.silence = fmax(worst.silence, last.silence);
    worst.cut |= last.cut;
    attacker_end(&a);
    if (!stage_recovers(3)) {
      // Not by itself: another stage for what is left.
      probes_stop();
      finish();
      if (!begin(&options)) return;
      probes_start("c");
    }
  }
  probes_stop();
  if (refusals) {
    char text[256];
    snprintf(text, sizeof text, "refused before: %s", refusal);
    row("ways of the attack that the back-end refuses beforehand", "-", "ok", text, "%d of %d", refusals, made);
  }
  if (made) {
    // Whose back-end it was is served again.
    struct vm v;
    int result = lost;
    for (double end = now() + 3; result != done && now() < end; pause_for(0.02)) result = vm_start(&v, in_folder("b"), 1, 64, 0), vm_end(&v);
    show_answers(worst, note);
    row("the next front-end of the attacker's VM", "served", verdict(result == done), "", result == done ? "served" : "not served");
  } else skip(note);
  finish();
}

static const struct variant linger_variants[] = {
  {{"linger", "stray"}, true}, {{"linger", "kick"}, false}, {{"linger", "call"}, false}, {{"linger", "err"}, false}, {{"linger", "slot"}, false},
  {{"linger", "table"}, true}, {{"linger", "log"}, false}, {{"linger", "inflight"}, false}, {{"linger", "backend"}, false},
  {{"linger", "ninth"}, true}, {{"linger", "unread"}, true}, {{"linger", "second"}, true}, {{"linger", "half"}, false}, {{0}, false}};
static const struct variant populated_variants[] = {{{"populated", "2048"}, true}, {{0}, false}};
static const struct variant linger_control_variants[] = {{{"linger", "control"}, true}, {{"linger", "control-closed"}, true}, {{0}, false}};
static const struct variant fuse_variants[] = {
  {{"fuse", "slot"}, true}, {{"fuse", "stray"}, true}, {{"fuse", "call"}, true}, {{"fuse", "kick"}, false}, {{"fuse", "table"}, false},
  {{"fuse", "log"}, false}, {{"fuse", "backend"}, false}, {{0}, false}};
static const struct variant counter_variants[] = {
  {{"counter", "call", "2.5"}, true}, {{"counter", "kick", "2.5"}, false}, {{"counter", "err", "2.5"}, false}, {{0}, false}};
static const struct moment linger = {linger_variants, 0.4, 0, ",config=on"}, populated = {populated_variants, 1, 0, NULL}, linger_control = {linger_control_variants, 0.4, 0, NULL},
  fuse = {fuse_variants, 0.4, 0, ",config=on"}, counter = {counter_variants, 2.8, 0, NULL};

// --- the victim's share ---

struct share {
  const char *words[6];       // the attacker
  const char *honest;         // what the honest VM does in its place: tx or rx
  bool sends_to_b;            // an honest VM c sends frames to b
  bool counts_losses;
  bool flood;                 // it takes a whole processor: it gives way where the victim cannot go ahead
  const char *extra[4];
  bool raises_limit;          // the operator allows rings of 32768
  bool packed;                // with a state directory, without which packed rings are not offered
};

static int by_value(const void *a, const void *b) { return *(const double *)a < *(const double *)b ? -1 : *(const double *)a > *(const double *)b; }
static double median(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, by_value);
  return count & 1 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

static void run_share(const struct attack_entry *entry) {
  const struct share *s = entry->details;
  int rounds = settings.quick ? 3 : 5, made = 0;
  double window = settings.quick ? 0.2 : 0.3, shares[16], gaps[16], alone_gaps[16], honest_shares[16], takings[16], rate = 0, attacked = 0;
  struct stage_options options = {.vms = 4, .extra = {s->extra[0] ? s->extra[0] : "--log-level", s->extra[0] ? s->extra[1] : "info"}};
  struct answers worst = {0};
  char note[200] = "";
  char state[200];
  snprintf(state, sizeof state, "%s", in_folder("state"));
  if (s->raises_limit && knows("ring-size-limit")) options.of_vm = ",ring-size-limit=32768";
  if (s->packed) options.extra[2] = "--state-dir", options.extra[3] = state, mkdir(state, 0700);
  if (!begin(&options)) return;
  struct attacker other = {.pid = -1};
  if (!victim_start()) { row("the victim is served", "yes", "BROKEN", "", "no"); finish(); return; }
  if (s->sends_to_b) { other = attacker_start(10, "sender", "16", "150", NULL); attacker_wait(&other, "fired", 10); }
  if (!inject_start('a')) { row("frames can be injected", "yes", "BROKEN", "", "no"); goto end; }
  probes_start("d");
  for (int n = 0; n < rounds; n++) {
    pause_for(0.05);
    struct sample alone = victim_measure(window);
    struct attacker b = attacker_start(10, "honest", s->honest, NULL);
    attacker_wait(&b, "fired", 10), pause_for(0.05);
    struct sample beside = victim_measure(window);
    attacker_end(&b), pause_for(0.05);
    b = attacker_start(s->flood && geteuid() ? 5 : 0, s->words[0], s->words[1], s->words[2], s->words[3], s->words[4], NULL);
    // What the attacker has of the worker says whether the attack is one: a ring that was stopped takes nothing. Older ones do not count it.
    double since = now(), taken = stage_metric("sluice_vm_worker_seconds_total{vm=\"b\"");
    probes_reset();
    const char *line = attacker_wait(&b, "fired", 15);
    if (!strncmp(line, "skipped", 7)) { snprintf(note, sizeof note, "%s", line + 8); attacker_end(&b); break; }
    if (!strncmp(line, "refused", 7)) snprintf(note, sizeof note, "%s", line);
    pause_for(0.05);
    struct sample under = victim_measure(window);
    struct answers a = probes_read();
    taken = (stage_metric("sluice_vm_worker_seconds_total{vm=\"b\"") - taken) / (now() - since);
    attacker_end(&b);
    worst.health = fmax(worst.health, a.health), worst.message = fmax(worst.message, a.message), worst.silence = fmax(worst.silence, a.silence), worst.cut |= a.cut;
    if (getenv("ISOLATION_VERBOSE")) fprintf(stderr, "%s: alone %.3f M/s gap %.0f us, honest %.3f M/s %.0f us, attack %.3f M/s %.0f us (disturbed %.2f %.2f %.2f), attacker has %.0f %% of the worker, %.0f us at once; message %.0f ms, health %.0f ms, silence %.2f s\n", entry->name,
      alone.rate / 1e6, alone.gap * 1e6, beside.rate / 1e6, beside.gap * 1e6, under.rate / 1e6, under.gap * 1e6, alone.disturbed, beside.disturbed, under.disturbed, taken * 100, stage_metric("sluice_vm_worker_longest_seconds{vm=\"b\"") * 1e6, a.message * 1e3, a.health * 1e3, a.silence);
    if (alone.rate < 1000) continue;
    shares[made] = under.rate / alone.rate, honest_shares[made] = beside.rate / alone.rate;
    gaps[made] = under.gap, alone_gaps[made] = beside.gap, takings[made] = isnan(taken) ? -1 : taken, made++;
    rate += alone.rate, attacked += under.rate;
    if (!stage_recovers(8)) break;
  }
  probes_stop();
  if (made) {
    double share = median(shares, made), honest_share = median(honest_shares, made), gap = median(gaps, made), usual = median(alone_gaps, made), taking = median(takings, made);
    char text[64], attacker[64] = "";
    if (taking >= 0) snprintf(attacker, sizeof attacker, "; attacker has %.0f %% of the worker", taking * 100);
    row("victim's share of its rate alone", "45 %", verdict(share * slack >= share_limit), note, "%.0f %% (%.2f M/s; honest %.0f %%%s)", share * 100, attacked / made / 1e6, honest_share * 100, attacker);
    snprintf(text, sizeof text, "2 x honest");
    row("gap between the victim's frames, p99.9", text, verdict(gap <= fmax(gap_limit * usual, gap_floor) * slack), note, "%.0f us (honest %.0f us)", gap * 1e6, usual * 1e6);
    show_answers(worst, note);
  } else if (note[0]) skip(note);
  else row("victim's share of its rate alone", "45 %", "BROKEN", "the victim receives nothing", "none");
  inject_stop();
  if (made && s->counts_losses) {
    // At a rate that never fills the ring unless the card or the worker stays away for 40 ms.
    struct attacker b = attacker_start(s->flood && geteuid() ? 5 : 0, s->words[0], s->words[1], s->words[2], s->words[3], s->words[4], NULL);
    attacker_wait(&b, "fired", 15);
    pause_for(0.1);
    uint64_t before = victim_frames();
    long sent = inject_all('a', "pps=20000", settings.quick ? 30 : 60, 20);
    pause_for(0.1);
    long got = (long)(victim_frames() - before);
    attacker_end(&b);
    row("victim's frames lost at 20,000 a second", "0", verdict(sent > 0 && got == sent), "", "%ld of %ld", sent - got, sent);
  }
end:
  probes_stop(), inject_stop();
  attacker_end(&other);
  victim_stop();
  finish();
}

#define LARGE(kind, direction) {.words = {"chains", direction, "32768", "500", "32768"}, .honest = direction, .sends_to_b = kind, .raises_limit = true}
#define TX(size, regions, entries) {.words = {"chains", "tx", size, regions, entries}, .honest = "tx"}
#define RX(size, regions, entries) {.words = {"chains", "rx", size, regions, entries}, .honest = "rx", .sends_to_b = true}
static const struct share tx_256 = TX("256", "2", "256"), tx_1024 = TX("1024", "2", "1024"), tx_1024_500 = TX("1024", "500", "1024"),
  tx_32768 = TX("32768", "1", "32768"), tx_32768_500 = LARGE(false, "tx"),
  tx_1024_cold = {.words = {"chains", "tx-cold", "1024", "2", "1024"}, .honest = "tx"}, rx_256 = RX("256", "2", "256"), rx_1024_500 = RX("1024", "500", "1024"), rx_32768_500 = LARGE(true, "rx"),
  packed_1024_500 = {.words = {"chains-packed", "1024", "500", "1024"}, .honest = "tx", .packed = true},
  waiters_small = {.words = {"waiters", "20000"}, .honest = "tx"}, waiters_large = {.words = {"waiters", "200000"}, .honest = "tx"},
  waiters_error = {.words = {"waiters-error", "200000"}, .honest = "tx"},
  flood_features = {.words = {"flood", "features"}, .flood = true, .honest = "tx"}, flood_half = {.words = {"flood", "half"}, .honest = "tx"},
  flood_connect = {.words = {"flood", "connect"}, .flood = true, .honest = "tx"}, flood_status = {.words = {"flood", "status"}, .honest = "tx"},
  flood_descriptors = {.words = {"flood", "descriptors"}, .flood = true, .honest = "tx"}, flood_tables = {.words = {"flood", "tables"}, .honest = "tx"},
  flood_restart = {.words = {"flood", "restart"}, .flood = true, .honest = "tx", .counts_losses = true}, flood_toggle = {.words = {"flood", "toggle"}, .honest = "tx", .counts_losses = true},
  flood_slots = {.words = {"flood", "slots"}, .flood = true, .honest = "tx", .counts_losses = true};

// --- regions that change while pages are lent ---

static void run_strict(const struct attack_entry *entry) {
  (void)entry;
  struct stage_options options = {.vms = 3, .extra = {"--protect", "strict"}};
  // The control thread and the worker have to run at the same time, and nothing is compared.
  settings.other_cpu = -1;
  if (!begin(&options)) return;
  probes_start("c");
  struct attacker b = attacker_start(0, "flood", "slots", NULL);
  attacker_wait(&b, "fired", 10);
  inject_start('b');
  double start = now(), limit = settings.quick ? 4 : 10;
  while (now() - start < limit && stage_is_alive()) pause_for(0.02);
  bool alive = stage_is_alive();
  struct answers a = probes_read();
  double frames = stage_metric("sluice_rx_frames_total{vm=\"b\"");
  inject_stop(), attacker_end(&b);
  if (getenv("ISOLATION_VERBOSE")) fprintf(stderr, "strict: b received %.0f frames\n", frames);
  row("sluice run under changing regions", "lives", verdict(alive), "", alive ? "lives (%.0f s)" : "died after %.1f s", now() - start);
  if (alive) show_answers(a, "");
  probes_stop();
  if (alive) finish(); else stage_end(NULL);
}

// --- who sends as whom ---

struct forged { const char *what; uint8_t to, from; int outer, inner; uint8_t victim; };
static const struct forged forgeries[] = {
  {"own address, VLAN of b", 2, 1, 200, -1, 'b'}, {"b's address as source, VLAN of b", 2, 2, 200, -1, 'b'}, {"an unused source, VLAN of b", 2, 9, 200, -1, 'b'},
  {"untagged, to b", 2, 1, -1, -1, 'b'}, {"priority tag, to b", 2, 1, 0, -1, 'b'}, {"two tags, the inner one VLAN of b", 2, 1, 100, 200, 'b'},
  {"broadcast, VLAN of b", 0xff, 1, 200, -1, 'b'}, {"b's address as source, to c untagged", 3, 2, -1, -1, 'c'}, {"b's address as source, to c in c's VLAN", 3, 2, 100, -1, 'c'},
  {"c's own address as source, to c", 3, 3, -1, -1, 'c'}, {"an unused source, to c untagged", 3, 9, -1, -1, 'c'}, {"an unused source, to c in c's VLAN", 3, 9, 100, -1, 'c'},
  {"a multicast source, to c", 3, 0xfd, -1, -1, 'c'}, {"b's address as source, broadcast", 0xff, 2, -1, -1, 'c'},
  {"VLAN of b, to the wire", 0xfe, 1, 200, -1, 'w'}, {"b's address as source, to the wire", 0xfe, 2, -1, -1, 'w'}, {"b's address as source, VLAN of b, to the wire", 0xfe, 2, 200, -1, 'w'},
};

static void send_frame(struct vm *v, const struct forged *f, const char *text) {
  uint32_t n = v->transmit.next % v->transmit.size;
  uint8_t *at = vm_transmit_buffer(v, n), frame[frame_bytes];
  memset(at, 0, net_header);
  put_frame(frame, f->to, f->from, -1, text);
  if (f->from == 0xfd) frame[6] = 3;
  size_t length = 12;
  uint8_t *out = at + net_header;
  memset(out, 0, frame_bytes), memcpy(out, frame, 12);
  int tags[2] = {f->outer, f->inner};
  for (int k = 0; k < 2; k++) if (tags[k] >= 0) out[length] = 0x81, out[length + 1] = 0, out[length + 2] = (uint8_t)(tags[k] >> 8), out[length + 3] = (uint8_t)tags[k], length += 4;
  memcpy(out + length, frame + 12, frame_bytes - length);
  ring_post(&v->transmit, (uint16_t)n), ring_publish(&v->transmit), ring_kick(&v->transmit);
}
// Whether a frame with the text came; what came is taken.
static bool came(struct vm *v, const char *text) {
  bool found = false;
  while (ring_used(&v->receive)) {
    struct vring_used_elem e = v->receive.view.used->ring[v->receive.seen++ % v->receive.size];
    uint8_t *bytes = v->memory.memory + (v->receive.view.desc[e.id].addr - v->memory.guest);
    found |= memmem(bytes, e.len, text, strlen(text)) != NULL;
    memset(bytes, 0, e.len), ring_post(&v->receive, (uint16_t)e.id);
  }
  ring_publish(&v->receive), ring_kick(&v->receive);
  return found;
}

static void run_spoof(const struct attack_entry *entry) {
  (void)entry;
  struct stage_options options = {.vms = 3, .has_vlans = true};
  struct vm a, b, c;
  if (!begin(&options)) return;
  if (vm_start(&a, in_folder("a"), 5, 0, 256) != done || vm_start(&b, in_folder("b"), 5, 256, 0) != done || vm_start(&c, in_folder("c"), 5, 256, 0) != done) {
    row("honest VMs are served", "yes", "BROKEN", "", "no"), finish();
    return;
  }
  ring_kick(&b.receive), ring_kick(&c.receive);
  // First what has to arrive: the rows behind would hold if nothing did.
  bool honest = false;
  for (int tag = 0; tag < 2; tag++) {
    const struct forged own = {"", 3, 1, tag ? 100 : -1, -1, 'c'};
    send_frame(&a, &own, "an honest frame");
    for (double end = now() + 1; !honest && now() < end; pause_for(0.01)) honest = came(&c, "an honest frame");
  }
  row("an honest frame in its own VLAN", "arrives", verdict(honest), "", honest ? "arrives" : "does not arrive");
  int through = 0, count = 0;
  char note[300] = "";
  for (size_t k = 0; k < sizeof forgeries / sizeof *forgeries; k++, count++) {
    const struct forged *f = &forgeries[k];
    char text[32];
    snprintf(text, sizeof text, "forged frame %zu.", k);
    double sent = stage_metric("sluice_nic_sent_frames_total");
    uint16_t want = (uint16_t)(a.transmit.next + 1);
    send_frame(&a, f, text);
    for (double end = now() + 2; a.transmit.view.used->idx != want && now() < end; pause_for(0.002)) {}
    pause_for(0.03);
    bool arrived = f->victim == 'w' ? stage_metric("sluice_nic_sent_frames_total") > sent : came(f->victim == 'b' ? &b : &c, text);
    if (!arrived) continue;
    through++;
    if (strlen(note) + strlen(f->what) + 3 < sizeof note) strcat(strcat(note, note[0] ? "; " : ""), f->what);
  }
  bool is_known = !isnan(stage_metric("sluice_nic_sent_frames_total"));
  row("forged frames that reached a VM or the wire", "0", verdict(through == 0 && is_known), is_known ? note : "what went to the wire is not known", "%d of %d", through, count);
  vm_end(&a), vm_end(&b), vm_end(&c);
  finish();
}

// --- all of fs.aio-max-nr taken ---

static long number_in(const char *file) {
  char text[64] = {0};
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  if (read(fd, text, sizeof text - 1) < 0) {}
  close(fd);
  return atol(text);
}
static void run_aio(const struct attack_entry *entry) {
  (void)entry;
  struct stage_options options = {.vms = 3};
  struct attacker taker = attacker_start(0, "aio", NULL), b = {.pid = -1};
  const char *line = attacker_wait(&taker, "armed", 5);
  long most = number_in("/proc/sys/fs/aio-max-nr"), taken = number_in("/proc/sys/fs/aio-nr");
  if (strcmp(line, "armed") || taken < most) { attacker_end(&taker); skip("asynchronous requests cannot all be taken here"); return; }
  int status = stage_start(&options);
  if (status != 0) {
    attacker_end(&taker);
    row("sluice run without asynchronous requests", "works or refuses", verdict(status > 0 && status < 128), "", "refuses to start, status %d", status);
    return;
  }
  // The first notification decides, and is the attack itself.
  b = attacker_start(0, "full-call", NULL);
  line = attacker_wait(&b, "fired", 5);
  pause_for(0.1);
  attacker_end(&taker);
  probes_start("c"), pause_for(2);
  struct answers a = probes_read();
  attacker_end(&b);
  stage_recovers(5), probes_stop();
  show_answers(a, "notifications without asynchronous requests");
  finish();
}

// --- memory that the back-end pays for ---

static void run_inflight(const struct attack_entry *entry) {
  (void)entry;
  struct stage_options options = {.vms = 3};
  if (!begin(&options)) return;
  probes_start("c");
  struct attacker a = attacker_start(0, "inflight", "600", NULL);
  attacker_wait(&a, "armed", 5), attacker_go(&a);
  const char *line = attacker_wait(&a, "value", 60);
  double bytes = !strncmp(line, "value", 5) ? atof(line + 6) : NAN;
  struct answers answers = probes_read();
  attacker_end(&a), probes_stop();
  row("memory in 600 in-flight regions, after disconnect", "16 MiB", verdict(bytes <= inflight_limit), "", "%.1f MiB", bytes / (1 << 20));
  show_answers(answers, "");
  finish();
}

static void run_memory(const struct attack_entry *entry) {
  (void)entry;
  const char *what = "memory that a VM may offer with memory-limit=1Gi", *limit = "1 GiB";
  if (!knows("memory-limit")) { row(what, limit, "BROKEN", "there is no limit", "no limit"); return; }
  struct stage_options options = {.vms = 3, .of_vm = ",memory-limit=1Gi"};
  if (!begin(&options)) return;
  // In one region, in a table of several, and slot by slot; none is touched.
  const uint64_t unit = 256 << 20;
  uint64_t most = 0;
  for (int way = 0; way < 3; way++) {
    uint64_t got = 0;
    struct region regions[8];
    for (int n = 1; n <= 8; n++) {
      struct peer p;
      int result = lost;
      if (!peer_open(&p, in_folder("b"), 2)) continue;
      if (peer_negotiate(&p, F_VERSION_1 | F_PROTOCOL, P_USUAL)) {
        if (way == 0) regions[0] = make_unmapped(0, (uint64_t)n * unit), result = peer_add_region(&p, &regions[0]), close(regions[0].fd);
        else {
          for (int k = 0; k < n; k++) regions[k] = make_unmapped((uint64_t)k << 32, unit);
          if (way == 1) result = peer_table(&p, regions, n);
          else { result = done; for (int k = 0; k < n && result == done; k++) result = peer_add_region(&p, &regions[k]); }
          for (int k = 0; k < n; k++) close(regions[k].fd);
        }
      }
      peer_close(&p);
      if (result == done) got = (uint64_t)n * unit;
    }
    most = got > most ? got : most;
    if (got < (1u << 30)) { row("memory within the limit is accepted", "1 GiB", "BROKEN", "", "%.2f GiB", (double)got / (1 << 30)); break; }
  }
  row(what, limit, verdict(most <= 1u << 30), "", "%.2f GiB", (double)most / (1 << 30));
  finish();
}

// --- descriptors that others keep ---

static void run_hoard(const struct attack_entry *entry) {
  (void)entry;
  struct stage_options options = {.vms = 5, .soft_limit = 1024};
  if (!begin(&options)) return;
  struct attacker a = attacker_start(0, "hoard", NULL);
  attacker_wait(&a, "fired", 5);
  int served = 0;
  for (int n = 0; n < 30; n++) {
    struct vm v;
    served += vm_start(&v, in_folder("a"), 2, 64, 64) == done;
    vm_end(&v), pause_for(0.03);
  }
  attacker_end(&a);
  row("front-ends of a fifth VM that are served", "30 of 30", verdict(served == 30), "soft limit 1024; 253 descriptors from each of four VMs", "%d of 30", served);
  finish();
}

// --- a front-end that passes its own socket, and dies ---

static void run_own_socket(const struct attack_entry *entry) {
  (void)entry;
  struct stage_options options = {.vms = 3, .of_vm = ",config=on"};
  const char *ways[] = {"backend", "kick", "half"};
  double longest = 0;
  char note[64] = "";
  if (!begin(&options)) return;
  for (int k = 0; k < 3; k++) {
    struct attacker a = attacker_start(0, "own-socket", ways[k], NULL);
    attacker_wait(&a, "armed", 5), attacker_go(&a), attacker_wait(&a, "fired", 5);
    attacker_end(&a);
    double start = now();
    struct vm v;
    int result = lost;
    while (result != done && now() - start < 5) if ((result = vm_start(&v, in_folder("b"), 1, 64, 0), vm_end(&v), result) != done) pause_for(0.02);
    double time = now() - start;
    if (time > longest) longest = time, snprintf(note, sizeof note, "worst: as %s", ways[k]);
    if (result == done) continue;
    finish();
    row("until the next front-end is served", "2 s", "BROKEN", note, "never");
    return;
  }
  row("until the next front-end is served", "2 s", verdict(longest <= 2), note, "%.2f s", longest);
  finish();
}

// --- every boundary value of every option, and SIGTERM ---

static void run_shutdown(const struct attack_entry *entry) {
  (void)entry;
  static const struct { const char *words[4], *of_vm; bool quick; } cases[] = {
    {{"--spin-us", "0"}, NULL, true}, {{"--spin-us", "1"}, NULL, false}, {{"--spin-us", "1000000"}, NULL, true}, {{"--workers", "1"}, NULL, false}, {{"--workers", "16"}, NULL, true},
    {{"--workers", "16", "--spin-us", "0"}, NULL, true}, {{"--ring-size", "64"}, NULL, false}, {{"--ring-size", "4096"}, NULL, false}, {{"--mtu", "68"}, NULL, false}, {{"--mtu", "9710"}, NULL, false},
    {{"--moderation-us", "0"}, NULL, false}, {{"--moderation-us", "1000"}, NULL, false}, {{"--protect", "strict", "--spin-us", "0"}, NULL, true},
    {{0}, ",queues=4", false}, {{0}, ",packed=off", false}, {{0}, ",datapath=copy", false}, {{0}, ",datapath=required", false}};
  int bad = 0, made = 0, cpu = settings.worker_cpu;
  double longest = 0;
  char note[160] = "";
  settings.worker_cpu = -1;
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) for (int connected = 0; connected < 2; connected++) {
    if (settings.quick && !cases[k].quick) continue;
    struct stage_options options = {.vms = 2, .of_vm = cases[k].of_vm};
    for (int n = 0; n < 4; n++) options.extra[n] = cases[k].words[n];
    int status = stage_start(&options);
    // A value that this back-end does not have is refused at once.
    if (status == 64) continue;
    made++;
    double time = 0;
    struct vm v = {.peer.socket = -1};
    if (status == 0) {
      if (connected && vm_start(&v, in_folder("a"), 5, 64, 64) == done) ring_kick(&v.receive);
      pause_for(0.05);
      status = stage_end(&time), vm_end(&v);
    }
    longest = fmax(longest, time);
    if (status == 0 && time <= 2) continue;
    bad++;
    char text[80];
    snprintf(text, sizeof text, "%s%s %s %s%s", note[0] ? "; " : "", cases[k].words[0] ? cases[k].words[0] : "", cases[k].words[1] ? cases[k].words[1] : cases[k].of_vm, cases[k].words[2] ? cases[k].words[2] : "", connected ? " (connected)" : "");
    if (strlen(note) + strlen(text) < sizeof note) strcat(note, text);
  }
  settings.worker_cpu = cpu;
  row("boundary values at which SIGTERM does not end it in 2 s", "0", verdict(bad == 0), note, "%d of %d (longest %.2f s)", bad, made, longest);
}

// --- configuration ---

static void run_yaml(const struct attack_entry *entry) {
  (void)entry;
  static const char *names[] = {"alias bomb as a key", "alias bomb as a value", "90,000 unknown keys", "nesting", "a mapping as a key"};
  double longest = 0;
  char note[160] = "", where[200];
  int bad = 0;
  snprintf(where, sizeof where, "%s", in_folder("bad.yaml"));
  for (int k = 0; k < 5; k++) {
    FILE *f = fopen(where, "w");
    if (!f) fail(where);
    if (k < 2) {
      fprintf(f, "a: &a [x, x, x, x, x, x, x, x, x]\n");
      for (char c = 'b'; c <= 'j'; c++) {
        fprintf(f, "%c: &%c [", c, c);
        for (int n = 0; n < 9; n++) fprintf(f, "%s*%c", n ? ", " : "", c - 1);
        fprintf(f, "]\n");
      }
      fprintf(f, k == 0 ? "? *j : 1\n" : "vms: *j\n");
    } else if (k == 2) for (int n = 0; n < 90000; n++) fprintf(f, "key%d: 1\n", n);
    else if (k == 3) { fprintf(f, "vms: "); for (int n = 0; n < 20000; n++) fputc('[', f); fputc('\n', f); }
    else fprintf(f, "? {a: [b, {c: d}]}\n: 1\nvms: []\n");
    fclose(f);
    char *words[] = {(char *)(uintptr_t)settings.sluice, "run", "--config", where, "--check", NULL};
    double start = now();
    int status = run_program(words, "check", 8);
    double time = now() - start;
    longest = fmax(longest, time);
    if (status == 78 && time < 2) continue;
    bad++;
    char text[100];
    snprintf(text, sizeof text, status < 0 ? "%s%s: more than 8 s" : "%s%s: status %d, %.1f s", note[0] ? "; " : "", names[k], status, time);
    if (strlen(note) + strlen(text) < sizeof note) strcat(note, text);
  }
  row("bad files that are not refused in 2 s with status 78", "0", verdict(bad == 0), note, "%d of 5 (longest %.1f s)", bad, longest);
}

// --- the guard of memory that its owner makes shorter ---

static void run_guard(const struct attack_entry *entry) {
  (void)entry;
  if (!guard_program) { skip("no source of this back-end was given"); return; }
  char *words[] = {(char *)(uintptr_t)guard_program, settings.quick ? "4" : "12", NULL};
  char text[200] = {0};
  int status = run_program(words, "guard", 40);
  FILE *f = fopen(in_folder("guard"), "r");
  if (f) { if (!fgets(text, sizeof text, f)) text[0] = 0; fclose(f); }
  long wiped = -1, faults = 0;
  if (sscanf(text, "wiped %ld of %ld", &wiped, &faults) != 2 || faults < 1000) { row("pages of others that the SIGBUS guard wiped", "0", "BROKEN", text, "status %d", status); return; }
  row("pages of others that the SIGBUS guard wiped", "0", verdict(wiped == 0), "", "%ld in %ld faults", wiped, faults);
}

// --- inject ---

static void run_inject(const struct attack_entry *entry) {
  (void)entry;
  // Two workers: b's frames are another's than the wire's.
  int cpu = settings.worker_cpu;
  struct stage_options options = {.vms = 4, .extra = {"--workers", "2"}};
  settings.worker_cpu = -1;
  bool fine = begin(&options);
  settings.worker_cpu = cpu;
  if (!fine) return;
  struct attacker b = attacker_start(10, "honest", "rx", NULL), c = attacker_start(10, "sender", "128", "1", NULL);
  attacker_wait(&b, "fired", 5), attacker_wait(&c, "fired", 5);
  int made = 0;
  double longest = 0;
  if (victim_start()) for (double end = now() + (settings.quick ? 3 : 6); now() < end && stage_is_alive(); made++) if (inject_all('a', "top", 3, 5) < 0) break;
  bool alive = stage_is_alive();
  row("injections beside other traffic, survived", "all", verdict(alive && made > 1), "", alive ? "%d, all" : "%d, and then it died", made);
  attacker_end(&b), attacker_end(&c);
  if (alive) {
    // VM d has no front-end: its frames must not hold those of others on the wire.
    double start = now();
    long sent = inject_all('d', "top", 1, 20);
    longest = now() - start;
    row("inject for a VM without a front-end", "1 s", verdict(longest <= 1), sent < 0 ? "refused" : "", "%.2f s", longest);
  }
  victim_stop();
  if (alive) finish(); else stage_end(NULL);
}

// --- all of them ---

static const struct attack_entry attacks[] = {
  {"linger", "front-end", "descriptors whose last close waits: TCP sockets with SO_LINGER, in every message and queue", true, run_moment, &linger},
  {"linger-control", "user", "the same at the control socket", true, run_moment, &linger_control},
  {"populated", "front-end", "2 GiB of memory whose last reference is the back-end's", true, run_moment, &populated},
  {"fuse", "front-end", "files of a FUSE file system whose server does not answer", true, run_moment, &fuse},
  {"counter", "front-end", "an eventfd that makes its writer sleep", true, run_moment, &counter},
  {"chains-tx-256", "guest", "transmit ring of 256, every head names a table of 256 pieces, 2 regions", true, run_share, &tx_256},
  {"chains-tx-1024", "guest", "the same with a ring of 1024", true, run_share, &tx_1024},
  {"chains-tx-1024-cold", "front-end", "the same in memory that nobody has touched yet", false, run_share, &tx_1024_cold},
  {"chains-tx-1024-500", "front-end", "the same with 500 regions", false, run_share, &tx_1024_500},
  {"chains-tx-32768", "front-end", "the same with a ring of 32768 and 1 region", false, run_share, &tx_32768},
  {"chains-tx-32768-500", "front-end", "the same with a ring of 32768 and 500 regions", false, run_share, &tx_32768_500},
  {"chains-rx-256", "guest", "receive ring of 256, tables of 256 entries, 2 regions, frames for it", false, run_share, &rx_256},
  {"chains-rx-1024-500", "front-end", "receive ring of 1024, 500 regions, frames for it", false, run_share, &rx_1024_500},
  {"chains-rx-32768-500", "front-end", "receive ring of 32768, 500 regions, frames for it", true, run_share, &rx_32768_500},
  {"chains-packed-1024-500", "front-end", "packed transmit ring of 1024, one table of 1024 entries, 500 regions", true, run_share, &packed_1024_500},
  {"spoof", "guest", "frames with another source, or into another VLAN", true, run_spoof, NULL},
  {"aio", "user, front-end", "all of fs.aio-max-nr is taken, and a call descriptor is full", true, run_aio, NULL},
  {"waiters-20000", "front-end", "a call descriptor with 20,000 waiters", false, run_share, &waiters_small},
  {"waiters-200000", "front-end", "a call descriptor with 200,000 waiters", true, run_share, &waiters_large},
  {"waiters-error", "front-end", "a ring that never can start, whose error descriptor has 200,000 waiters", false, run_share, &waiters_error},
  {"inflight", "front-end", "GET_INFLIGHT_FD 600 times", true, run_inflight, NULL},
  {"memory", "front-end", "sparse memory is offered that is beyond the VM's limit", true, run_memory, NULL},
  {"guard", "front-end", "memory made shorter while other memory is mapped: Guard.c alone", true, run_guard, NULL},
  {"shutdown", "-", "SIGTERM at every boundary value of every option", true, run_shutdown, NULL},
  {"flood-tables", "front-end", "SET_MEM_TABLE between two of 512 GiB", false, run_share, &flood_tables},
  {"flood-restart", "front-end", "SET_VRING_KICK without end: rings stop and start", false, run_share, &flood_restart},
  {"flood-toggle", "front-end", "SET_VRING_ENABLE without end, 64 at a time", true, run_share, &flood_toggle},
  {"flood-slots", "front-end", "a region added and removed while rings run", false, run_share, &flood_slots},
  {"strict-regions", "front-end", "the same with --protect strict, while frames come for it", true, run_strict, NULL},
  {"flood-features", "front-end", "GET_FEATURES without end", false, run_share, &flood_features},
  {"flood-half", "front-end", "messages byte by byte", false, run_share, &flood_half},
  {"flood-connect", "front-end", "connections without end", false, run_share, &flood_connect},
  {"flood-descriptors", "front-end", "connections, each with 253 descriptors", false, run_share, &flood_descriptors},
  {"flood-status", "user", "status requests without end", false, run_share, &flood_status},
  {"hoard", "front-ends", "253 descriptors kept by each of four VMs", true, run_hoard, NULL},
  {"own-socket", "front-end", "its own socket passed, and then it dies", true, run_own_socket, NULL},
  {"inject", "user", "inject, beside traffic of other VMs and for a VM that is not there", true, run_inject, NULL},
  {"yaml", "author of files", "alias bombs, 90,000 unknown keys, nesting", true, run_yaml, NULL},
};
enum { attack_count = sizeof attacks / sizeof *attacks };

// The worker's processor, and one for all else; -1 where there is only one.
static void choose_processors(void) {
  cpu_set_t set;
  int found[2] = {-1, -1}, count = 0;
  sched_getaffinity(0, sizeof set, &set);
  for (int k = 0; k < CPU_SETSIZE && count < 2; k++) if (CPU_ISSET(k, &set)) found[count++] = k;
  if (count < 2) found[0] = found[1] = -1;
  settings.worker_cpu = found[0], settings.other_cpu = found[1];
}

int main(int count, char **words) {
  const char *percent = getenv("ISOLATION_SLACK");
  if (percent) slack = 1 + atof(percent) / 100;
  if (count > 1 && !strcmp(words[1], "attack")) return attack(count - 2, words + 2);
  const char *name = NULL;
  settings.seed = (uint64_t)now();
  for (int k = 1; k < count; k++) {
    if (!strcmp(words[k], "--quick")) settings.quick = true;
    else if (k + 1 < count && !strcmp(words[k], "--sluice")) settings.sluice = words[++k];
    else if (k + 1 < count && !strcmp(words[k], "--folder")) settings.folder = words[++k];
    else if (k + 1 < count && !strcmp(words[k], "--guard")) guard_program = words[++k];
    else if (k + 1 < count && !strcmp(words[k], "--seed")) settings.seed = strtoull(words[++k], NULL, 10);
    else if (k + 1 < count && !strcmp(words[k], "run")) name = words[++k];
  }
  if (count > 1 && !strcmp(words[1], "list")) {
    for (int k = 0; k < attack_count; k++) if (!settings.quick || attacks[k].quick) printf("%s\t%s\t%s\n", attacks[k].name, attacks[k].adversary, attacks[k].what);
    return 0;
  }
  if (!name || !settings.sluice || !settings.folder) return fputs("usage: isolation list [--quick] | run NAME --sluice PROGRAM --folder FOLDER [--seed N] [--quick] [--guard PROGRAM]\n", stderr), 64;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Whatever happens, it ends; what it started ends with it.
  alarm(150);
  signal(SIGPIPE, SIG_IGN);
  // Ahead of other programs of this machine, where that is allowed: the stage's threads have to run at the same time. Where Linux
  // schedules sessions as groups (sched(7), autogroup) the session has a priority, and its threads keep theirs: among them are some
  // of the back-end's that libraries give a priority of their own.
  setsid();
  int group = number_in("/proc/sys/kernel/sched_autogroup_enabled") == 1 ? open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC) : -1;
  if (group >= 0) { if (write(group, "-15", 3) < 0) {} close(group); }
  else setpriority(PRIO_PROCESS, 0, -5);
  choose_processors();
  for (int k = 0; k < attack_count; k++) if (!strcmp(attacks[k].name, name)) {
    current = &attacks[k];
    attacks[k].run(&attacks[k]);
    return 0;
  }
  fprintf(stderr, "isolation: no attack %s\n", name);
  return 64;
}
