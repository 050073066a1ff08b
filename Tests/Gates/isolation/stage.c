#include "stage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

struct settings settings;
// The priority of the worker and of the victim, where it may be set.
enum { ahead = -15 };
const char *in_folder(const char *name) {
  static char text[8][200];
  static atomic_int next;
  char *at = text[atomic_fetch_add(&next, 1) & 7];
  snprintf(at, sizeof text[0], "%s/%s", settings.folder, name);
  return at;
}
static void pin(pid_t thread, int cpu) {
  cpu_set_t set;
  if (cpu < 0) return;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(thread, sizeof set, &set);
}

// --- the back-end ---

static pid_t pid = -1;
static pid_t worker;
static pid_t threads[128];
static int thread_count;

// Time in which a thread was ready and waited for a processor, in seconds. That is the machine's doing, not the back-end's.
static double delay_of(pid_t process, pid_t thread) {
  char name[64], text[100] = {0};
  snprintf(name, sizeof name, "/proc/%d/task/%d/schedstat", process, thread);
  int fd = open(name, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  unsigned long long run = 0, wait = 0;
  if (read(fd, text, sizeof text - 1) > 0) sscanf(text, "%llu %llu", &run, &wait);
  close(fd);
  return (double)wait / 1e9;
}

static void find_threads(void) {
  char name[300], text[32] = {0};
  snprintf(name, sizeof name, "/proc/%d/task", pid);
  DIR *folder = opendir(name);
  if (!folder) return;
  thread_count = 0;
  for (struct dirent *e; (e = readdir(folder));) {
    pid_t thread = atoi(e->d_name);
    if (thread <= 0) continue;
    snprintf(name, sizeof name, "/proc/%d/task/%d/comm", pid, thread);
    FILE *f = fopen(name, "r");
    if (!f) continue;
    if (!fgets(text, sizeof text, f)) text[0] = 0;
    fclose(f);
    // Ahead of the stage's other threads, where that is allowed, as is the victim.
    if (!strncmp(text, "worker0", 7)) worker = thread, setpriority(PRIO_PROCESS, (id_t)thread, ahead);
    else {
      if (strncmp(text, "worker", 6)) pin(thread, settings.other_cpu);
      if (thread != pid && thread_count < 128) threads[thread_count++] = thread;
    }
  }
  closedir(folder);
}

// The signs of life, as systemd would have them.
static int notify_socket = -1;
static pthread_t notify_thread;
static atomic_bool is_ready, notify_ends;
static _Atomic double last_sign, longest_silence;

static void *notify_run(void *unused) {
  (void)unused;
  char text[512];
  while (!notify_ends) {
    struct pollfd readable = {notify_socket, POLLIN, 0};
    if (poll(&readable, 1, 50) <= 0) continue;
    ssize_t size = recv(notify_socket, text, sizeof text - 1, 0);
    if (size <= 0) continue;
    text[size] = 0;
    if (strstr(text, "READY=1")) { is_ready = true; last_sign = now(); }
    if (strstr(text, "WATCHDOG=1")) {
      double time = now(), gap = time - last_sign;
      if (gap > longest_silence) longest_silence = gap;
      last_sign = time;
    }
  }
  return NULL;
}

static void limit_life(void) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
}

int stage_start(const struct stage_options *o) {
  char *words[64], vms[16][200];
  int count = 0;
  const char *names = "abcdefgh";
  words[count++] = (char *)(uintptr_t)settings.sluice, words[count++] = "run";
  for (int n = 0; n < o->vms; n++) {
    snprintf(vms[n], sizeof vms[n], "%c,socket=%s/%c,mac=02:00:00:00:00:%02x%s%s", names[n], settings.folder, names[n], n + 1,
      !o->has_vlans ? "" : n == 1 ? ",vlan=200" : ",vlan=100", o->of_vm ? o->of_vm : "");
    words[count++] = "--vm", words[count++] = vms[n];
    unlink(in_folder((char[]){names[n], 0}));
  }
  char cpu[16];
  unlink(in_folder("control"));
  char control[200];
  snprintf(control, sizeof control, "%s", in_folder("control"));
  words[count++] = "--control", words[count++] = control;
  if (settings.worker_cpu >= 0) snprintf(cpu, sizeof cpu, "%d", settings.worker_cpu), words[count++] = "--cpus", words[count++] = cpu;
  for (int k = 0; k < 8 && o->extra[k]; k++) words[count++] = (char *)(uintptr_t)o->extra[k];
  words[count] = NULL;

  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, in_folder("notify"), sizeof address.sun_path - 1);
  unlink(address.sun_path);
  notify_socket = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (bind(notify_socket, (struct sockaddr *)&address, sizeof address)) fail("the socket for signs of life");
  is_ready = false; notify_ends = false; longest_silence = 0; last_sign = now(); worker = 0;
  pthread_create(&notify_thread, NULL, notify_run, NULL);
  fflush(NULL);
  pid = fork();
  if (pid == 0) {
    limit_life();
    int log = open(in_folder("log"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), none = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(none, 0), dup2(log, 1), dup2(log, 2);
    setenv("NOTIFY_SOCKET", in_folder("notify"), 1), setenv("WATCHDOG_USEC", "300000", 1), unsetenv("WATCHDOG_PID");
    setenv("SWIFT_BACKTRACE", "enable=no", 1);
    if (o->soft_limit) {
      struct rlimit files;
      getrlimit(RLIMIT_NOFILE, &files), files.rlim_cur = o->soft_limit, setrlimit(RLIMIT_NOFILE, &files);
    }
    execv(words[0], words);
    _exit(127);
  }
  for (double end = now() + 15; !is_ready && now() < end; pause_for(0.005)) {
    int status;
    if (waitpid(pid, &status, WNOHANG) == pid) {
      pid = -1, stage_end(NULL);
      return WIFEXITED(status) ? WEXITSTATUS(status) : 256;
    }
  }
  if (!is_ready) { stage_end(NULL); return 256; }
  find_threads();
  return 0;
}

int stage_end(double *seconds) {
  int result = -1, status;
  double start = now();
  if (pid > 0) {
    kill(pid, SIGTERM);
    bool ended = false;
    while (!(ended = waitpid(pid, &status, WNOHANG) == pid) && now() < start + 3) pause_for(0.002);
    if (seconds) *seconds = now() - start;
    if (!ended) kill(pid, SIGKILL), waitpid(pid, &status, 0);
    else result = WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
  }
  pid = -1;
  if (notify_socket >= 0) {
    notify_ends = true; pthread_join(notify_thread, NULL);
    close(notify_socket), notify_socket = -1;
  }
  return result;
}

bool stage_is_alive(void) {
  siginfo_t info = {0};
  return pid > 0 && waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0;
}
pid_t stage_pid(void) { return pid; }
void stage_print_log(void) {
  if (!getenv("ISOLATION_VERBOSE")) return;
  char command[300];
  fprintf(stderr, "the back-end's log ends with:\n");
  snprintf(command, sizeof command, "tail -5 %s/log >&2", settings.folder);
  if (system(command)) {}
}

// --- HTTP ---

// One request. Returns the length of the answer, or -1.
static long request(const char *text, char *into, size_t room, double timeout) {
  struct peer p;
  if (!peer_open(&p, in_folder("control"), timeout)) return -1;
  size_t length = 0;
  bool fine = send(p.socket, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
  for (double end = now() + timeout; fine;) {
    char rest[8192];
    bool fits = length + 1 < room;
    ssize_t got = recv(p.socket, fits ? into + length : rest, fits ? room - length - 1 : sizeof rest, 0);
    if (got == 0) break;
    if (got < 0 || now() > end) { fine = false; break; }
    if (fits) length += (size_t)got;
  }
  peer_close(&p);
  if (room) into[length] = 0;
  return fine ? (long)length : -1;
}
static bool is_healthy(double timeout) {
  char text[4096];
  return request("GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", text, sizeof text, timeout) > 0 && strstr(text, " 200 ");
}
bool stage_recovers(double seconds) {
  for (double end = now() + seconds; now() < end && stage_is_alive(); pause_for(0.01)) if (is_healthy(end - now() + 0.01)) return true;
  return false;
}
double stage_metric(const char *name) {
  static char text[1 << 20];
  if (request("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", text, sizeof text, 5) <= 0) return NAN;
  double sum = NAN;
  for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
    char *value = strrchr(line, ' ');
    if (strncmp(line, name, strlen(name)) || !value) continue;
    sum = (isnan(sum) ? 0 : sum) + atof(value);
  }
  return sum;
}

// --- probes ---

// A time that is being taken: others may read it before it has ended.
struct watch { _Atomic double begun, longest; double delay_before, most_before, threads_before[128]; int count; };
static struct watch health_watch, message_watch;
static atomic_bool probes_end, is_cut;
static pthread_t health_thread, message_thread;
static bool has_probes;
static char probed[8];

// Waits of the control thread, the worker and the probe for a processor, and the longest of any other thread's.
static double delay_sum(void) { return delay_of(pid, pid) + (worker ? delay_of(pid, worker) : 0) + delay_of(getpid(), gettid()); }
static void watch_begin(struct watch *w) {
  w->delay_before = delay_sum(), w->count = thread_count;
  for (int k = 0; k < w->count; k++) w->threads_before[k] = delay_of(pid, threads[k]);
  w->begun = now();
}
static void watch_end(struct watch *w) {
  double time = now() - w->begun;
  w->begun = 0;
  if (time > 0.005) {
    double most = 0;
    for (int k = 0; k < w->count; k++) most = fmax(most, delay_of(pid, threads[k]) - w->threads_before[k]);
    time = fmax(0, time - (delay_sum() - w->delay_before) - most);
  }
  if (time > w->longest) w->longest = time;
}
static double watch_read(struct watch *w) {
  double begun = w->begun, time = begun > 0 ? now() - begun : 0;
  // One that goes on counts once it is long enough to be no accident of this machine's.
  return time > 0.3 && time > w->longest ? time : w->longest;
}

static void *health_run(void *unused) {
  (void)unused;
  for (int n = 0; !probes_end; n++) {
    char text[4096];
    watch_begin(&health_watch);
    bool fine = n % 4 == 3 ? request("GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", text, sizeof text, 5) > 0 : is_healthy(5);
    watch_end(&health_watch);
    // What is refused at once is not an answer.
    if (!fine && health_watch.longest < 5 && !probes_end) health_watch.longest = 5;
    pause_for(0.01);
  }
  return NULL;
}

static void time_message(bool begins) { if (begins) watch_begin(&message_watch); else watch_end(&message_watch); }

static void *message_run(void *unused) {
  (void)unused;
  struct vm v = {.peer.socket = -1};
  bool open = false;
  peer_timing = time_message;
  for (int n = 0; !probes_end; n++) {
    if (!open) {
      vm_end(&v);
      open = vm_start(&v, in_folder(probed), 5, 256, 0) == done;
      if (!open) { is_cut = true; pause_for(0.02); continue; }
    }
    uint64_t value;
    // One in ten times the ring is stopped and started again, for which the worker is asked.
    if (n % 10 == 9) {
      int base = stop_ring(&v.peer, 0);
      open = base >= 0 && start_ring(&v.peer, &v.receive, (uint16_t)base) == done;
    } else if (n % 5 == 3) open = peer_order_value(&v.peer, set_vring_call, 0, v.receive.call) == done;
    else open = peer_value(&v.peer, get_features, &value);
    if (!open && !probes_end) is_cut = true;
    pause_for(0.01);
  }
  vm_end(&v);
  return NULL;
}

void probes_start(const char *name) {
  snprintf(probed, sizeof probed, "%s", name);
  probes_end = false; is_cut = false; has_probes = true;
  health_watch = (struct watch){0}, message_watch = (struct watch){0};
  pthread_create(&health_thread, NULL, health_run, NULL), pthread_create(&message_thread, NULL, message_run, NULL);
  pause_for(0.15);
  find_threads();
  probes_reset();
}
void probes_stop(void) {
  if (!has_probes) return;
  probes_end = true; has_probes = false;
  pthread_join(health_thread, NULL), pthread_join(message_thread, NULL);
}
void probes_reset(void) {
  health_watch.longest = 0; message_watch.longest = 0; is_cut = false;
  longest_silence = 0; last_sign = now();
}
struct answers probes_read(void) {
  double silence = now() - last_sign;
  return (struct answers){fmax(silence, longest_silence), watch_read(&health_watch), watch_read(&message_watch), is_cut};
}

bool probes_wait(void) {
  double health = health_watch.begun, message = message_watch.begun, time = now();
  return (health > 0 && time - health > 0.2) || (message > 0 && time - message > 0.2);
}

// --- the victim ---

// Deliveries by the gap before them: eight steps for each power of two of nanoseconds.
enum { steps = 8, places = 44 * steps, away = 100000 };
static atomic_ullong frames, histogram[places];
// Nanoseconds in which the victim polled, and the frames that it found then; the rest is time in which it had no processor.
static atomic_ullong polled_time, polled_frames;
static struct vm victim;
static pthread_t victim_thread;
static atomic_bool victim_ends;
static bool has_victim;
static _Atomic pid_t victim_id;

static uint64_t nanoseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}
static int place_of(uint64_t gap) {
  int power = gap < steps ? 3 : 63 - __builtin_clzll(gap);
  int place = (power - 3) * steps + (int)(gap >> (power - 3) & (steps - 1));
  return place < places ? place : places - 1;
}
static double gap_of(int place) { return (double)((uint64_t)(steps + place % steps) << (place / steps)) / 1e9; }
static void count(int place) { atomic_fetch_add_explicit(&histogram[place], 1, memory_order_relaxed); }

static void *victim_run(void *unused) {
  (void)unused;
  struct ring *r = &victim.receive;
  uint16_t mask = (uint16_t)(r->size - 1);
  pin(0, settings.other_cpu), prctl(PR_SET_TIMERSLACK, 1000);
  setpriority(PRIO_PROCESS, (id_t)gettid(), ahead);
  victim_id = gettid();
  uint64_t last = nanoseconds(), polled = last;
  double worker_delay = delay_of(pid, worker);
  bool is_known = false;
  while (!victim_ends) {
    uint16_t fresh = ring_used(r);
    uint64_t time = nanoseconds();
    // This thread was away itself: nothing can be said about the gap, nor about the rate.
    if (time - polled > away) is_known = false;
    else { polled_time += time - polled; polled_frames += fresh; }
    polled = time;
    if (!fresh) {
      // A nap, not a loop: attackers need this processor too, or they would be weak because of it.
      usleep(8);
      continue;
    }
    for (uint16_t k = 0; k < fresh; k++) r->view.avail->ring[r->next++ & mask] = (uint16_t)r->view.used->ring[r->seen++ & mask].id;
    ring_publish(r), ring_kick(r);
    uint64_t gap = time - last;
    if (gap > 300000) {
      // Of a long gap what the worker waited for a processor does not count.
      double delay = delay_of(pid, worker);
      uint64_t others = (uint64_t)(fmax(0, delay - worker_delay) * 1e9);
      worker_delay = delay, gap -= others < gap ? others : gap;
      polled = nanoseconds();
    }
    if (is_known) count(place_of(gap));
    atomic_fetch_add_explicit(&frames, fresh, memory_order_relaxed);
    last = time, is_known = true;
  }
  return NULL;
}

bool victim_start(void) {
  if (vm_start(&victim, in_folder("a"), 5, 1024, 0) != done) return false;
  victim.receive.view.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
  victim_ends = false; frames = 0; has_victim = true; victim_id = 0;
  for (int k = 0; k < places; k++) histogram[k] = 0;
  ring_kick(&victim.receive);
  pthread_create(&victim_thread, NULL, victim_run, NULL);
  while (!victim_id) pause_for(0.001);
  return true;
}
void victim_stop(void) {
  if (!has_victim) return;
  victim_ends = true; has_victim = false;
  pthread_join(victim_thread, NULL), vm_end(&victim);
}
uint64_t victim_frames(void) { return frames; }

struct sample victim_measure(double seconds) {
  static uint64_t before[places];
  struct sample s = {0};
  find_threads();
  for (int k = 0; k < places; k++) before[k] = histogram[k];
  uint64_t frames_before = frames, found_before = polled_frames, time_before = polled_time;
  double delay = delay_of(pid, worker), start = now(), time = 0, useful = 0;
  // On a busy machine it takes longer until both had a processor for long enough.
  do {
    pause_for(time == 0 ? seconds : 0.02);
    time = now() - start;
    useful = (double)(polled_time - time_before) / 1e9 * fmax(0.02, 1 - (delay_of(pid, worker) - delay) / time);
  } while (useful < 0.5 * seconds && time < 6 * seconds);
  s.frames = frames - frames_before, s.disturbed = 1 - useful / time;
  s.rate = (double)(polled_frames - found_before) / fmax(useful, 1e-3);
  uint64_t all = 0, above = 0;
  for (int k = 0; k < places; k++) before[k] = histogram[k] - before[k], all += before[k];
  int place = places - 1;
  for (; place > 0; place--) if ((above += before[place]) * 1000 > all) break; // the first place above 99.9 %
  // Of fewer than a thousand deliveries that is the longest gap; of none, the whole window.
  s.gap = all ? gap_of(place) : time;
  return s;
}

// --- frames from the wire ---

static const char *trace(char vm) {
  static bool is_written[8];
  int number = vm - 'a';
  const char *name = in_folder((char[]){'t', 'r', 'a', 'c', 'e', vm, 0});
  if (is_written[number]) return name;
  is_written[number] = true;
  FILE *f = fopen(name, "w");
  if (!f) fail(name);
  uint32_t header[6] = {0xa1b2c3d4, 4 << 16 | 2, 0, 0, 65535, 1};
  fwrite(header, sizeof header, 1, f);
  for (uint32_t n = 0; n < trace_frames; n++) {
    uint8_t frame[frame_bytes] = {0};
    uint32_t record[4] = {0, n, sizeof frame, sizeof frame};
    put_frame(frame, (uint8_t)(number + 1), 9, -1, "from the wire");
    fwrite(record, sizeof record, 1, f), fwrite(frame, sizeof frame, 1, f);
  }
  fclose(f);
  return name;
}
static struct peer injection = {.socket = -1};
static bool inject_request(struct peer *p, char vm, const char *speed, long loops, double timeout) {
  char body[500], text[700];
  snprintf(body, sizeof body, "{\"file\":\"%s\",\"loops\":%ld,\"speed\":\"%s\",\"filter\":null}", trace(vm), loops, speed);
  int length = snprintf(text, sizeof text, "POST /v1/inject HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", strlen(body), body);
  return peer_open(p, in_folder("control"), timeout) && send(p->socket, text, (size_t)length, MSG_NOSIGNAL) == length;
}
bool inject_start(char vm) { return inject_request(&injection, vm, "top", 1000000000, 5); }
void inject_stop(void) { peer_close(&injection); }
long inject_all(char vm, const char *speed, long loops, double timeout) {
  struct peer p;
  char text[8192] = {0};
  size_t length = 0;
  if (!inject_request(&p, vm, speed, loops, timeout)) return -1;
  for (ssize_t got; length + 1 < sizeof text && (got = recv(p.socket, text + length, sizeof text - length - 1, 0)) > 0;) length += (size_t)got;
  peer_close(&p);
  char *sent = strstr(text, "\"sent\":");
  return sent ? atol(sent + 7) : -1;
}

// --- attackers ---

struct attacker attacker_start(int niceness, ...) {
  struct attacker a = {.pid = -1};
  char seed[32], *words[16] = {"isolation", "attack"};
  int count = 2, in[2], out[2];
  va_list list;
  snprintf(seed, sizeof seed, "%llu", (unsigned long long)settings.seed);
  va_start(list, niceness);
  words[count++] = va_arg(list, char *);
  words[count++] = (char *)(uintptr_t)settings.folder, words[count++] = seed;
  while (count < 15 && (words[count] = va_arg(list, char *))) count++;
  words[count] = NULL;
  va_end(list);
  if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) fail("pipe");
  fflush(NULL);
  a.pid = fork();
  if (a.pid == 0) {
    limit_life();
    setpgid(0, 0);
    dup2(in[0], 0), dup2(out[1], 1);
    // Beside a victim, so that the worker has its processor for itself.
    if (has_victim) pin(0, settings.other_cpu);
    if (niceness) setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + niceness);
    execv("/proc/self/exe", words);
    _exit(127);
  }
  close(in[0]), close(out[1]);
  a.to = in[1], a.from = out[0];
  return a;
}
const char *attacker_wait(struct attacker *a, const char *word, double seconds) {
  size_t length = 0;
  for (double end = now() + seconds;;) {
    struct pollfd readable = {a->from, POLLIN, 0};
    double left = end - now();
    if (left <= 0 || poll(&readable, 1, (int)(left * 1000) + 1) <= 0) return a->line[0] = 0, a->line;
    char byte;
    if (read(a->from, &byte, 1) != 1) return a->line[0] = 0, a->line;
    if (byte != '\n') { if (length + 1 < sizeof a->line) a->line[length++] = byte; continue; }
    a->line[length] = 0, length = 0;
    if (!strncmp(a->line, word, strlen(word)) || !strncmp(a->line, "refused", 7) || !strncmp(a->line, "skipped", 7)) return a->line;
  }
}
void attacker_go(struct attacker *a) { if (write(a->to, "go\n", 3) < 0) {} }
void attacker_end(struct attacker *a) {
  if (a->pid > 0) kill(-a->pid, SIGKILL), kill(a->pid, SIGKILL), waitpid(a->pid, NULL, 0), close(a->from), close(a->to);
  a->pid = -1;
}

int run_program(char *const words[], const char *output, double seconds) {
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    limit_life();
    int log = open(in_folder(output), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), none = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(none, 0), dup2(log, 1), dup2(log, 2);
    execv(words[0], words);
    _exit(127);
  }
  int status;
  for (double end = now() + seconds; now() < end; pause_for(0.005)) {
    if (waitpid(child, &status, WNOHANG) == child) return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
  }
  kill(child, SIGKILL), waitpid(child, &status, 0);
  return -1;
}
