#include "attackers.h"
#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char *folder;
static uint64_t seed;
static const char *path(const char *name) {
  static char text[4][200];
  static int next;
  char *at = text[next++ & 3];
  snprintf(at, sizeof text[0], "%s/%s", folder, name);
  return at;
}
static uint64_t random_number(void) { return seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17; }

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
  va_list list;
  va_start(list, format), vprintf(format, list), va_end(list);
  putchar('\n'), fflush(stdout);
}
__attribute__((format(printf, 1, 2))) static _Noreturn void leave(const char *format, ...) {
  va_list list;
  va_start(list, format), vprintf(format, list), va_end(list);
  putchar('\n'), fflush(stdout);
  exit(0);
}
// Waits for the judge's line.
static void armed(void) {
  char line[16];
  say("armed");
  if (!fgets(line, sizeof line, stdin)) exit(0);
}
static _Noreturn void stay(void) { for (;;) pause(); }

// --- descriptors whose last close waits: a TCP socket with SO_LINGER and bytes that its peer does not take ---

enum { linger_seconds = 2 };

static int lingering(void) {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 4096;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), setsockopt(s, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 1) || getsockname(listener, (struct sockaddr *)&address, &size)
    || connect(s, (struct sockaddr *)&address, size) || accept(listener, NULL, NULL) < 0)
    leave("skipped no TCP over the loopback interface (%s)", strerror(errno));
  char bytes[65536] = {0};
  while (send(s, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {}
  setsockopt(s, SOL_SOCKET, SO_LINGER, &(struct linger){1, linger_seconds}, sizeof(struct linger));
  return s;
}

static struct peer connected(const char *name, bool negotiates, uint64_t protocol) {
  struct peer p;
  if (!peer_open(&p, path(name), 5)) leave("refused the connection (%s)", strerror(errno));
  if (negotiates && !peer_negotiate(&p, F_VERSION_1 | F_PROTOCOL | F_MERGEABLE | F_INDIRECT, protocol)) leave("refused the negotiation");
  return p;
}

// A message in two parts: descriptors come with the first, and our own copies are closed before the second, so that the
// back-end's close is the last one.
static void send_split(struct peer *p, uint32_t request, const void *body, uint32_t size, const int *fds, int count) {
  uint8_t bytes[600];
  memcpy(bytes, (uint32_t[]){request, 1, size}, 12);
  if (size) memcpy(bytes + 12, body, size);
  if (!peer_raw(p, bytes, 4, fds, count)) leave("refused the descriptors (%s)", strerror(errno));
  pause_for(0.05);
  for (int k = 0; k < count; k++) close(fds[k]);
  armed();
  peer_raw(p, bytes + 4, 8 + size, NULL, 0);
  say("fired");
}

// Makes the back-end stop reading: its replies are not read until the socket is full. What is sent then waits in the queue.
static bool stop_reader(struct peer *p) {
  for (int n = 0; n < 10000; n++) {
    uint32_t header[3] = {get_features, 1, 0};
    int waiting = 0;
    if (send(p->socket, header, sizeof header, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof header) return false;
    if (n % 8) continue;
    // What was sent is read within 0.15 s, or is not read any more.
    for (double end = now() + 0.15; !ioctl(p->socket, SIOCOUTQ, &waiting) && waiting > 0 && now() < end;) pause_for(0.0005);
    if (waiting > 0) return true;
  }
  return false;
}
static void resume_reader(struct peer *p) {
  char bytes[4096];
  for (double end = now() + 1; now() < end;) if (recv(p->socket, bytes, sizeof bytes, MSG_DONTWAIT) <= 0) {
    if (errno != EAGAIN) return;
    pause_for(0.001);
  }
}

static int passes_by_message(const char *where, int (*make)(void), struct peer *p) {
  uint64_t ring = 0;
  struct { uint64_t padding, guest, bytes, user, offset; } slot = {0, 0x100000, 4096, 0x100000 + USER_OFFSET, 0};
  struct { uint64_t bytes, offset; uint16_t rings, size; } __attribute__((packed)) inflight = {1 << 20, 0, 2, 256};
  int fds[253];
  if (!strcmp(where, "stray")) *p = connected("b", false, 0), fds[0] = make(), send_split(p, get_features, NULL, 0, fds, 1);
  else if (!strcmp(where, "kick")) *p = connected("b", true, P_USUAL), fds[0] = make(), send_split(p, set_vring_kick, &ring, 8, fds, 1);
  else if (!strcmp(where, "call")) *p = connected("b", true, P_USUAL), fds[0] = make(), send_split(p, set_vring_call, &ring, 8, fds, 1);
  else if (!strcmp(where, "err")) *p = connected("b", true, P_USUAL), fds[0] = make(), send_split(p, set_vring_err, &ring, 8, fds, 1);
  else if (!strcmp(where, "slot")) *p = connected("b", true, P_USUAL), fds[0] = make(), send_split(p, add_mem_reg, &slot, sizeof slot, fds, 1);
  else if (!strcmp(where, "log")) *p = connected("b", true, P_USUAL), fds[0] = make(), send_split(p, set_log_base, (uint64_t[]){4096, 0}, 16, fds, 1);
  else if (!strcmp(where, "inflight")) *p = connected("b", true, P_USUAL), fds[0] = make(), send_split(p, set_inflight_fd, &inflight, sizeof inflight, fds, 1);
  else if (!strcmp(where, "backend")) *p = connected("b", true, P_USUAL | P_BACKEND_REQ | P_CONFIG), fds[0] = make(), send_split(p, set_backend_req_fd, NULL, 0, fds, 1);
  else if (!strcmp(where, "half")) {
    // With the first bytes of a message that never ends.
    *p = connected("b", false, 0), fds[0] = make();
    peer_raw(p, &(uint32_t){get_features}, 4, fds, 1), pause_for(0.05), close(fds[0]);
    armed(), peer_close(p), say("fired");
  } else if (!strcmp(where, "table")) {
    struct { uint32_t count, padding; struct { uint64_t guest, bytes, user, offset; } regions[8]; } table = {.count = 8};
    *p = connected("b", true, P_USUAL);
    for (uint64_t k = 0; k < 8; k++) {
      table.regions[k].guest = k << 30, table.regions[k].bytes = 4096, table.regions[k].user = (k << 30) + USER_OFFSET;
      fds[k] = make();
    }
    send_split(p, set_mem_table, &table, sizeof table, fds, 8);
  } else return 0;
  return 1;
}

// Where descriptors are dropped that no message names: by the kernel, or with a queue that was not read.
static int passes_by_queue(const char *where, int (*make)(void), struct peer *p) {
  uint8_t header[12];
  int fds[253];
  if (!strcmp(where, "ninth") || !strcmp(where, "unread")) {
    bool ninth = !strcmp(where, "ninth");
    int count = ninth ? 253 : 1;
    *p = connected("b", false, 0);
    for (int k = 0; k < count - 1; k++) fds[k] = STDIN_FILENO;
    fds[count - 1] = make();
    if (!stop_reader(p)) leave("refused to be kept waiting");
    // A request that ends the connection, or not; behind it the descriptors.
    memcpy(header, (uint32_t[]){ninth ? get_features : 9999, 1, 0}, 12);
    if (!ninth) peer_raw(p, header, 12, NULL, 0);
    memcpy(header, (uint32_t[]){get_features, 1, 0}, 12);
    if (!peer_raw(p, header, 12, fds, count)) leave("skipped the queue has no room (%s)", strerror(errno));
    close(fds[count - 1]);
    armed(), say("fired"), resume_reader(p);
  } else if (!strcmp(where, "second")) {
    // The socket has a front-end: another connection is turned away, with what it sent before it was accepted.
    *p = connected("b", true, P_USUAL);
    int s = make();
    armed();
    for (int attempt = 0; attempt < 1000; attempt++) {
      struct peer other;
      char byte;
      if (!peer_open(&other, path("b"), 1)) continue;
      memcpy(header, (uint32_t[]){get_features, 1, 0}, 12);
      bool sent = peer_raw(&other, header, 12, &s, 1);
      // Still open: the queue is not gone yet, and its copy is the last one now.
      if (sent && recv(other.socket, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN) { close(s), say("fired"); break; }
      peer_close(&other);
    }
  } else if (!strcmp(where, "control") || !strcmp(where, "control-closed")) {
    // The control socket takes no descriptors; they come with a request, or with half of one that is given up.
    const char *text = "GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n";
    int all = !strcmp(where, "control");
    fds[0] = make();
    armed();
    if (!peer_open(p, path("control"), 5)) leave("refused the connection (%s)", strerror(errno));
    peer_raw(p, text, all ? strlen(text) : 5, fds, 1), close(fds[0]);
    if (!all) peer_close(p);
    say("fired");
  } else return 0;
  return 1;
}

static int linger(char **words) {
  struct peer p;
  if (!passes_by_message(words[0], lingering, &p) && !passes_by_queue(words[0], lingering, &p)) return 64;
  stay();
}

// populated: memory that is there, and whose last reference is the back-end's: its pages are freed by whoever lets it go.
static int populated(char **words) {
  uint64_t bytes = (uint64_t)atoi(words[0]) << 20, available = 0;
  char line[100];
  FILE *f = fopen("/proc/meminfo", "r");
  while (f && fgets(line, sizeof line, f)) if (sscanf(line, "MemAvailable: %lu", &available) == 1) break;
  if (f) fclose(f);
  if (available << 10 < 3 * bytes) leave("skipped less than %llu MiB of memory are free", 3ull * (bytes >> 20));
  struct peer p = connected("b", true, P_USUAL);
  struct region r = make_region(0x100000, bytes);
  for (uint64_t at = 0; at < bytes; at += 4096) r.memory[at] = 1;
  int result = peer_add_region(&p, &r);
  munmap(r.memory, bytes), close(r.fd);
  if (result != done) leave("refused the memory");
  armed(), peer_close(&p), say("fired");
  stay();
}

// --- a file of a FUSE file system whose server answers when it likes ---

static int fuse;
// In memory that the server's process shares.
static volatile int *withholds;
enum { withheld_seconds = 2 };

static void fuse_answer(uint64_t unique, int error, const void *body, size_t size) {
  uint8_t bytes[4096];
  struct fuse_out_header header = {(uint32_t)(sizeof header + size), error, unique};
  memcpy(bytes, &header, sizeof header);
  if (size) memcpy(bytes + sizeof header, body, size);
  if (write(fuse, bytes, sizeof header + size) < 0) {}
}
static struct fuse_attr fuse_attributes(uint64_t node) {
  return (struct fuse_attr){.ino = node, .size = 1 << 21, .mode = node == 1 ? S_IFDIR | 0777 : S_IFREG | 0666, .nlink = 1, .uid = getuid(), .gid = getgid(), .blksize = 4096};
}
struct held { uint64_t unique; uint32_t code; uint64_t node; };
static void fuse_reply(struct held h) {
  switch (h.code) {
  case FUSE_GETATTR: fuse_answer(h.unique, 0, &(struct fuse_attr_out){.attr = fuse_attributes(h.node)}, sizeof(struct fuse_attr_out)); break;
  case FUSE_LOOKUP: fuse_answer(h.unique, 0, &(struct fuse_entry_out){.nodeid = 2, .attr = fuse_attributes(2)}, sizeof(struct fuse_entry_out)); break;
  case FUSE_OPEN: case FUSE_OPENDIR: fuse_answer(h.unique, 0, &(struct fuse_open_out){.fh = 1}, sizeof(struct fuse_open_out)); break;
  case FUSE_STATFS: fuse_answer(h.unique, 0, &(struct fuse_statfs_out){.st.bsize = 4096}, sizeof(struct fuse_statfs_out)); break;
  default: fuse_answer(h.unique, 0, NULL, 0);
  }
}
static void *fuse_late(void *argument) {
  struct held h = *(struct held *)argument;
  free(argument);
  pause_for(withheld_seconds);
  fuse_reply(h);
  return NULL;
}
static void fuse_serve(void) {
  static uint8_t bytes[1 << 18];
  for (;;) {
    ssize_t size = read(fuse, bytes, sizeof bytes);
    if (size < 0 && (errno == EINTR || errno == ENOENT)) continue;
    if (size < (ssize_t)sizeof(struct fuse_in_header)) return;
    struct fuse_in_header in;
    memcpy(&in, bytes, sizeof in);
    if (in.opcode == FUSE_INIT) {
      fuse_answer(in.unique, 0, &(struct fuse_init_out){.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION, .max_write = 4096, .max_readahead = 4096}, sizeof(struct fuse_init_out));
    } else if (in.opcode == FUSE_FORGET || in.opcode == FUSE_BATCH_FORGET || in.opcode == FUSE_INTERRUPT) continue;
    else if (*withholds && in.opcode != FUSE_LOOKUP) {
      struct held *h = malloc(sizeof *h);
      pthread_t thread;
      *h = (struct held){in.unique, in.opcode, in.nodeid};
      if (pthread_create(&thread, NULL, fuse_late, h)) fuse_reply(*h);
    } else fuse_reply((struct held){in.unique, in.opcode, in.nodeid});
  }
}

static void put_text(const char *file, const char *text) {
  int fd = open(file, O_WRONLY | O_CLOEXEC);
  if (fd >= 0) { if (write(fd, text, strlen(text)) < 0) {} close(fd); }
}
static int fuse_file(void) {
  static int number = -1;
  if (number >= 0) return fcntl(number, F_DUPFD_CLOEXEC, 0);
  char options[100], place[200], map[100];
  uid_t uid = getuid();
  gid_t gid = getgid();
  snprintf(place, sizeof place, "%s/fuse", folder);
  mkdir(place, 0777);
  fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fuse < 0) leave("skipped /dev/fuse cannot be opened: %s", strerror(errno));
  // Root mounts it in a mount namespace of its own, any other user in a user namespace, as fusermount would for all to see.
  if (unshare(uid == 0 ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS)) leave("skipped no user namespace: %s", strerror(errno));
  if (uid) {
    put_text("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "%u %u 1", uid, uid), put_text("/proc/self/uid_map", map);
    snprintf(map, sizeof map, "%u %u 1", gid, gid), put_text("/proc/self/gid_map", map);
  }
  mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%u,group_id=%u", fuse, uid, gid);
  if (mount("attacker", place, "fuse", MS_NOSUID | MS_NODEV, options)) leave("skipped FUSE cannot be mounted here: %s", strerror(errno));
  // The server has a process of its own, without a file of its file system: its end closes /dev/fuse, and ends what waits for it.
  withholds = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (withholds == MAP_FAILED) leave("skipped no memory");
  pid_t parent = getpid(), server = fork();
  if (server == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent) fuse_serve();
    _exit(0);
  }
  close(fuse);
  snprintf(place, sizeof place, "%s/fuse/file", folder);
  number = open(place, O_RDWR | O_CLOEXEC);
  if (number < 0) leave("skipped no file in the FUSE file system: %s", strerror(errno));
  return fcntl(number, F_DUPFD_CLOEXEC, 0);
}

static int fuse_attack(char **words) {
  struct peer p;
  uint64_t ring = 0;
  struct { uint64_t padding, guest, bytes, user, offset; } slot = {0, 0x100000, 1 << 21, 0x100000 + USER_OFFSET, 0};
  const char *where = words[0];
  int fd = fuse_file();
  bool strays = !strcmp(where, "stray");
  p = connected("b", !strays, P_USUAL | P_BACKEND_REQ | P_CONFIG);
  armed();
  *withholds = 1;
  uint64_t none = 0;
  if (strays) peer_send(&p, get_features, 0, NULL, 0, &fd, 1);
  else if (!strcmp(where, "slot")) peer_send(&p, add_mem_reg, 0, &slot, sizeof slot, &fd, 1);
  else if (!strcmp(where, "table")) {
    struct { uint32_t count, padding; uint64_t guest, bytes, user, offset; } table = {1, 0, slot.guest, slot.bytes, slot.user, 0};
    peer_send(&p, set_mem_table, 0, &table, sizeof table, &fd, 1);
  } else if (!strcmp(where, "call")) peer_send(&p, set_vring_call, 0, &ring, 8, &fd, 1);
  else if (!strcmp(where, "kick")) peer_send(&p, set_vring_kick, 0, &ring, 8, &fd, 1);
  else if (!strcmp(where, "log")) peer_send(&p, set_log_base, 0, (uint64_t[]){4096, none}, 16, &fd, 1);
  else if (!strcmp(where, "backend")) peer_send(&p, set_backend_req_fd, 0, NULL, 0, &fd, 1);
  else return 64;
  say("fired");
  stay();
}

// --- an eventfd that makes its writer sleep: full, and O_NONBLOCK taken back in a loop ---

static volatile int toggles = 1;
static void *take_back(void *event) {
  while (toggles) fcntl(*(int *)event, F_SETFL, O_RDWR);
  return NULL;
}

static int counter(char **words) {
  uint32_t request = !strcmp(words[0], "kick") ? set_vring_kick : !strcmp(words[0], "err") ? set_vring_err : set_vring_call;
  int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  uint64_t ring = 0, reply;
  overfill(event);
  struct peer p = connected("b", true, P_USUAL);
  struct timeval limit = {0, 300000};
  setsockopt(p.socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  armed(), say("fired");
  pthread_t threads[2];
  for (int k = 0; k < 2; k++) pthread_create(&threads[k], NULL, take_back, &event);
  double end = now() + atof(words[1]);
  long tries = 0;
  // Some at a time, so that the back-end handles them while this thread sleeps.
  for (; now() < end; tries += 32) {
    int sent = 0, answered = 0;
    while (sent < 32 && peer_send(&p, request, 8 /* NEED_REPLY */, &ring, 8, &event, 1)) sent++;
    while (answered < sent && peer_reply(&p, request, &reply, 8, NULL)) answered++;
    if (answered == sent && sent) continue;
    // No answer within the limit, or the session was ended.
    if (recv(p.socket, &reply, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN) break;
    do peer_close(&p), pause_for(0.01); while (now() < end && !(peer_open(&p, path("b"), 0.3) && peer_negotiate(&p, F_VERSION_1 | F_PROTOCOL | F_MERGEABLE | F_INDIRECT, P_USUAL)));
  }
  toggles = 0;
  for (int k = 0; k < 2; k++) pthread_join(threads[k], NULL);
  say("value %ld", tries);
  stay();
}

// --- rings ---

// Keeps a transmit or receive ring full: used heads are posted again at once. Sleeps a little between, to leave the processor to
// the victim.
static _Noreturn void drive(struct ring *r, uint32_t nap_us) {
  uint64_t mask = r->size - 1;
  for (;;) {
    uint16_t fresh = ring_used(r);
    for (uint16_t k = 0; k < fresh; k++) {
      uint32_t id = r->view.used->ring[r->seen++ & mask].id;
      ring_post(r, (uint16_t)id);
    }
    if (fresh) ring_publish(r), ring_kick(r);
    usleep(nap_us);
  }
}

// chains: every head of the ring names an indirect table of as many pieces of a few bytes as are allowed. They lie in `regions`
// regions, in an order that no cache of the last region helps with, and where there are only two in a memory that no cache holds. A
// guest has touched its memory; of a front-end's that is cold, each page is allocated when the back-end first comes to it.
static int chains(char **words) {
  bool receives = !strcmp(words[0], "rx"), is_cold = !strcmp(words[0], "tx-cold");
  uint32_t size = (uint32_t)atoi(words[1]), regions = (uint32_t)atoi(words[2]), entries = (uint32_t)atoi(words[3]);
  // A table for each head, or one for all if they would take too much. Together the pieces hold one frame that is not too long.
  uint32_t tables = (uint64_t)size * entries <= 1 << 20 ? size : 1, length = receives ? (2047 + entries) / entries : entries < 1500 ? 1500 / entries : 1;
  const uint64_t small = 4096, step = 0x10000, first = 0x10000000, large = 1ull << 30, large_bytes = 64 << 20, table_at = 2 << 20;
  struct peer p = connected("b", true, P_USUAL);
  struct region memory = make_region(0, table_at + (uint64_t)tables * entries * 16 + small), data = make_region(large, large_bytes);
  struct region pages = make_unmapped(0, regions * small);
  if (!is_cold && (fallocate(data.fd, 0, 0, (off_t)large_bytes) || fallocate(pages.fd, 0, 0, (off_t)(regions * small)))) leave("skipped no memory: %s", strerror(errno));
  if (peer_add_region(&p, &memory) != done || peer_add_region(&p, &data) != done) leave("refused the memory");
  for (uint32_t k = 2; k < regions; k++) {
    struct region one = {.guest = first + k * step, .bytes = small, .offset = k * small, .fd = pages.fd};
    if (peer_add_region(&p, &one) != done) leave("refused region %u", k + 1);
  }
  struct ring r;
  make_ring(&r, receives ? 0 : 1, size, &memory, 0);
  for (uint32_t n = 0; n < size; n++) {
    uint64_t table = table_at + (uint64_t)(n % tables) * entries * 16;
    struct vring_desc *entry = (struct vring_desc *)(void *)(memory.memory + table);
    for (uint32_t k = 0; k < entries && n < tables; k++) {
      uint64_t at = large + random_number() % (large_bytes - 4096);
      if (regions > 2) at = first + (2 + random_number() % (regions - 2)) * step + random_number() % 2000;
      // Something of the first region too, which is only read.
      else if (regions == 2 && k & 1 && !receives) at = table_at + random_number() % ((uint64_t)tables * entries * 8);
      entry[k] = (struct vring_desc){at, length, (uint16_t)((receives ? VRING_DESC_F_WRITE : 0) | (k + 1 < entries ? VRING_DESC_F_NEXT : 0)), (uint16_t)(k + 1)};
    }
    r.view.desc[n] = (struct vring_desc){table, 16 * entries, VRING_DESC_F_INDIRECT, 0};
    ring_post(&r, (uint16_t)n);
  }
  ring_publish(&r);
  int result = start_ring(&p, &r, 0);
  if (result != done) leave("refused a ring of %u", size);
  ring_kick(&r);
  say("fired");
  drive(&r, 20);
}

// chains-packed: the same with a packed transmit ring. virtio 1.2, 2.8.
struct packed { uint64_t address; uint32_t length; uint16_t id, flags; };
static int chains_packed(char **words) {
  uint32_t size = (uint32_t)atoi(words[0]), regions = (uint32_t)atoi(words[1]), entries = (uint32_t)atoi(words[2]);
  struct peer p = connected("b", false, 0);
  if (!peer_negotiate(&p, F_VERSION_1 | F_PROTOCOL | F_MERGEABLE | F_INDIRECT | F_PACKED, P_USUAL)) leave("refused the negotiation");
  if (!(p.features & F_PACKED)) leave("skipped packed rings are not offered");
  struct region memory = make_region(0, 8 << 20), pages = make_unmapped(0, (uint64_t)regions * 4096);
  if (peer_add_region(&p, &memory) != done) leave("refused the memory");
  for (uint32_t k = 1; k < regions; k++) {
    struct region one = {.guest = 0x10000000 + (uint64_t)k * 0x10000, .bytes = 4096, .offset = (uint64_t)(k - 1) * 4096, .fd = pages.fd};
    if (peer_add_region(&p, &one) != done) leave("refused region %u", k + 1);
  }
  enum { at_driver = 1 << 20, at_device = at_driver + 4096, at_table = 2 << 20, at_data = 6 << 20 };
  struct packed *ring = (void *)memory.memory, *table = (void *)(memory.memory + at_table);
  for (uint32_t k = 0; k < entries; k++) {
    uint32_t region = regions > 1 ? (uint32_t)(random_number() % regions) : 0;
    table[k] = (struct packed){region ? 0x10000000 + (uint64_t)region * 0x10000 + k % 2000 : at_data + k, entries >= 1400 ? 1 : (1400 + entries - 1) / entries, 0, 0};
  }
  put_frame(memory.memory + at_data + net_header, 0xfe, 2, -1, "chain");
  enum { available = 1 << 7, used = 1 << 15 };
  for (uint32_t n = 0; n < size; n++) ring[n] = (struct packed){at_table, 16 * entries, (uint16_t)n, VRING_DESC_F_INDIRECT | available};
  int kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), error = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct { uint32_t index, flags; uint64_t descriptors, used, available, log; } address = {1, 0, USER_OFFSET, USER_OFFSET + at_device, USER_OFFSET + at_driver, 0};
  uint64_t raised;
  if (peer_order_value(&p, set_vring_err, 1, error) || peer_order_value(&p, set_vring_call, 1, call) || peer_order_state(&p, set_vring_num, 1, size)
    || peer_order_state(&p, set_vring_base, 1, 0x80008000u) || peer_order(&p, set_vring_addr, &address, sizeof address, -1)
    || peer_order_value(&p, set_vring_kick, 1, kick) || peer_order_state(&p, set_vring_enable, 1, 1) || read(error, &raised, 8) == 8)
    leave("refused a packed ring of %u", size);
  eventfd_write(kick, 1);
  say("fired");
  uint32_t next = 0;
  for (bool wrap = true;; usleep(20)) {
    bool any = false;
    for (;;) {
      uint16_t flags = __atomic_load_n(&ring[next].flags, __ATOMIC_ACQUIRE);
      if (!!(flags & used) != wrap || !!(flags & available) != wrap) break;
      // Made available again, for the next lap.
      ring[next].address = at_table, ring[next].length = 16 * entries;
      __atomic_store_n(&ring[next].flags, (uint16_t)(VRING_DESC_F_INDIRECT | (wrap ? used : available)), __ATOMIC_RELEASE);
      any = true;
      if (++next == size) next = 0, wrap = !wrap;
    }
    if (any) eventfd_write(kick, 1);
  }
}

// honest: asks for as much as it can with ordinary buffers.
static int honest(char **words) {
  struct vm v;
  bool receives = !strcmp(words[0], "rx");
  if (vm_start(&v, path("b"), 5, receives ? 1024 : 0, receives ? 0 : 1024) != done) leave("refused an honest front-end");
  struct ring *r = receives ? &v.receive : &v.transmit;
  r->view.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
  if (!receives) {
    for (uint32_t n = 0; n < r->size; n++) put_frame(vm_transmit_buffer(&v, n) + net_header, 0xfe, 2, -1, "honest"), ring_post(r, (uint16_t)n);
    ring_publish(r);
  }
  ring_kick(r);
  say("fired");
  drive(r, 30);
}

// sender: VM c sends frames to VM b, so many at a time.
static int sender(char **words) {
  struct vm v;
  uint32_t burst = (uint32_t)atoi(words[0]), nap = (uint32_t)atoi(words[1]);
  if (vm_start(&v, path("c"), 5, 0, 256) != done) leave("refused an honest front-end");
  struct ring *r = &v.transmit;
  r->view.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
  for (uint32_t n = 0; n < r->size; n++) put_frame(vm_transmit_buffer(&v, n) + net_header, 2, 3, -1, "to b");
  say("fired");
  for (uint32_t sent = 0;;) {
    while (ring_used(r)) r->seen++;
    uint32_t n = 0;
    for (; n < burst && (uint16_t)(r->next - r->seen) < r->size; n++) ring_post(r, (uint16_t)(sent++ % r->size));
    if (n) ring_publish(r), ring_kick(r);
    usleep(nap);
  }
}

// Has an eventfd watched so many times: whoever raises it walks them all.
static void watch_often(int event, int wanted) {
  int side = 1, polls[1000], copies[1000], count = 0;
  while (side * side < wanted) side++;
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files), files.rlim_cur = files.rlim_max, setrlimit(RLIMIT_NOFILE, &files);
  for (int k = 0; k < side; k++) if ((copies[k] = fcntl(event, F_DUPFD_CLOEXEC, 0)) < 0 || (polls[k] = epoll_create1(EPOLL_CLOEXEC)) < 0) leave("skipped only %d descriptors may be open", 2 * k);
  for (int k = 0; k < side * side && count < wanted; k++, count++) {
    struct epoll_event change = {.events = EPOLLIN | EPOLLET};
    if (epoll_ctl(polls[k / side], EPOLL_CTL_ADD, copies[k % side], &change)) leave("skipped only %d waiters are possible: %s", count, strerror(errno));
  }
}

// waiters: VM b's call descriptor is watched so many times. b sends as fast as it can.
static int waiters(char **words) {
  struct vm v;
  if (vm_start(&v, path("b"), 5, 0, 256) != done) leave("refused an honest front-end");
  watch_often(v.transmit.call, atoi(words[0]));
  for (uint32_t n = 0; n < v.transmit.size; n++) put_frame(vm_transmit_buffer(&v, n) + net_header, 0xfe, 2, -1, "waiters"), ring_post(&v.transmit, (uint16_t)n);
  ring_publish(&v.transmit), ring_kick(&v.transmit);
  say("fired");
  drive(&v.transmit, 30);
}

// waiters-error: the error descriptor of a ring that cannot start, for it is said to lie outside of memory. Each attempt raises it.
static int waiters_error(char **words) {
  struct peer p = connected("b", true, P_USUAL);
  struct region memory = make_region(0, 2 << 20);
  if (peer_add_region(&p, &memory) != done) leave("refused the memory");
  struct ring r;
  make_ring(&r, 1, 256, &memory, 0);
  watch_often(r.error, atoi(words[0]));
  struct region elsewhere = memory;
  elsewhere.guest = 1ull << 36;
  r.memory = &elsewhere;
  if (start_ring(&p, &r, 0) == lost) leave("refused a ring outside of memory");
  say("fired");
  for (;;) if (start_ring(&p, &r, 0) == lost) leave("refused the next");
}

// --- floods ---

static void again(struct peer *p, bool negotiates) {
  peer_close(p);
  for (;;) {
    if (peer_open(p, path("b"), 1)) {
      if (!negotiates || peer_negotiate(p, F_VERSION_1 | F_PROTOCOL | F_MERGEABLE | F_INDIRECT, P_USUAL)) return;
      peer_close(p);
    }
    pause_for(0.002);
  }
}

// A thread that gives a receive ring's buffers back, while another sends messages.
static struct ring *_Atomic refilled;
static void *refill(void *unused) {
  (void)unused;
  for (;; usleep(20)) {
    struct ring *r = refilled;
    if (!r) continue;
    uint16_t fresh = ring_used(r);
    for (uint16_t n = fresh; n; n--) ring_post(r, (uint16_t)r->view.used->ring[r->seen++ & (r->size - 1)].id);
    if (fresh) ring_publish(r), ring_kick(r);
  }
  return NULL;
}

static int flood(char **words) {
  const char *what = words[0];
  struct peer p = {.socket = -1};
  struct vm v;
  if (!strcmp(what, "features")) {
    // Many at once; replies are read, so that nothing but the number of messages counts.
    again(&p, false), say("fired");
    for (;;) {
      uint32_t batch[64][3];
      char replies[64 * 20];
      for (int k = 0; k < 64; k++) batch[k][0] = get_features, batch[k][1] = 1, batch[k][2] = 0;
      if (!peer_raw(&p, batch, sizeof batch, NULL, 0) || recv(p.socket, replies, sizeof replies, MSG_WAITALL) != sizeof replies) again(&p, false);
    }
  }
  if (!strcmp(what, "half")) {
    again(&p, false), say("fired");
    for (;;) {
      // A byte at a time: each wakes the reader.
      uint32_t header[3] = {set_owner, 1, 0};
      for (size_t k = 0; k < sizeof header; k++) if (send(p.socket, (uint8_t *)header + k, 1, MSG_NOSIGNAL) != 1) { again(&p, false); break; }
    }
  }
  if (!strcmp(what, "connect")) {
    say("fired");
    for (;;) {
      struct peer other;
      if (peer_open(&other, path("b"), 1)) peer_close(&other);
    }
  }
  if (!strcmp(what, "status")) {
    say("fired");
    for (;;) {
      struct peer other;
      char bytes[65536];
      const char *text = "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
      if (!peer_open(&other, path("control"), 2)) continue;
      if (send(other.socket, text, strlen(text), MSG_NOSIGNAL) > 0) while (recv(other.socket, bytes, sizeof bytes, 0) > 0) {}
      peer_close(&other);
    }
  }
  if (!strcmp(what, "descriptors")) {
    // As many as a message may carry, of a kind that no message takes, and then the message is refused.
    int fds[253], most = 253;
    for (int k = 0; k < most; k++) fds[k] = open("/dev/null", O_RDWR | O_CLOEXEC);
    say("fired");
    for (;;) {
      again(&p, false);
      peer_send(&p, get_features, 0, NULL, 0, fds, most);
      char byte;
      recv(p.socket, &byte, 1, 0);
    }
  }
  if (!strcmp(what, "tables")) {
    // Two tables of the largest region that is accepted, in turns.
    uint64_t bytes = 512ull << 30;
    struct region a, b;
    for (;; bytes /= 2) {
      again(&p, true);
      a = make_unmapped(0, bytes), b = make_unmapped(0, bytes);
      if (peer_table(&p, &a, 1) == done) break;
      close(a.fd), close(b.fd);
      if (bytes < 1 << 20) leave("refused every table");
    }
    say("fired");
    // Many in the queue, so that the back-end may handle them in one turn.
    for (uint64_t value;;) {
      bool open = true;
      for (int n = 0; n < 48 && open; n++) {
        const struct region *r = n & 1 ? &a : &b;
        struct { uint32_t count, padding; uint64_t guest, bytes, user, offset; } table = {1, 0, r->guest, r->bytes, r->guest + USER_OFFSET, 0};
        open = peer_send(&p, set_mem_table, 0, &table, sizeof table, &r->fd, 1);
      }
      if (!open || !peer_value(&p, get_features, &value)) again(&p, true);
    }
  }
  if (!strcmp(what, "restart") || !strcmp(what, "toggle")) {
    // restart: SET_VRING_KICK of rings that run. toggle: SET_VRING_ENABLE, 64 messages in one send.
    bool toggles_rings = !strcmp(what, "toggle");
    for (bool first = true;;) {
      if (vm_start(&v, path("b"), 1, 256, 256) != done) { vm_end(&v), pause_for(0.005); continue; }
      if (first) first = false, say("fired");
      for (bool open = true; open;) {
        uint64_t value;
        if (toggles_rings) {
          struct { uint32_t request, flags, size, index, value; } batch[64];
          for (uint32_t k = 0; k < 64; k++) {
            batch[k].request = set_vring_enable, batch[k].flags = 1, batch[k].size = 8, batch[k].index = k & 1, batch[k].value = k >> 1 & 1;
          }
          open = peer_raw(&v.peer, batch, sizeof batch, NULL, 0);
        } else for (uint64_t k = 0; k < 16 && open; k++) {
          uint64_t ring = k & 1;
          open = peer_send(&v.peer, set_vring_kick, 0, &ring, 8, k & 1 ? &v.transmit.kick : &v.receive.kick, 1);
        }
        open = open && peer_value(&v.peer, get_features, &value);
      }
      vm_end(&v);
    }
  }
  if (!strcmp(what, "slots")) {
    // One region more and less while the others stay, and the ring runs, whose buffers come back at once.
    static struct vm vms[2];
    pthread_t thread;
    for (int n = 0, started = 0;; n ^= 1) {
      // Of two, so that the thread can let go of the one before.
      struct vm *w = &vms[n];
      if (vm_start(w, path("b"), 1, 1024, 0) != done) { vm_end(w), pause_for(0.005); continue; }
      struct region extra = make_unmapped(1ull << 32, 1 << 20);
      struct { uint64_t padding, guest, bytes, user, offset; } slot = {0, extra.guest, extra.bytes, extra.guest + USER_OFFSET, 0};
      ring_kick(&w->receive);
      refilled = &w->receive;
      if (!started) started = 1, pthread_create(&thread, NULL, refill, NULL), say("fired");
      for (uint64_t value, open = true; open;) {
        for (int k = 0; k < 16 && open; k++) {
          open = peer_send(&w->peer, add_mem_reg, 0, &slot, sizeof slot, &extra.fd, 1) && peer_send(&w->peer, rem_mem_reg, 0, &slot, sizeof slot, NULL, 0);
        }
        open = open && peer_value(&w->peer, get_features, &value);
      }
      refilled = NULL;
      pause_for(0.01);
      close(extra.fd), vm_end(w);
    }
  }
  return 64;
}

// --- others ---

// inflight: GET_INFLIGHT_FD so many times; every descriptor is kept. The value is what their files hold, in bytes.
static int inflight(char **words) {
  int count = atoi(words[0]), got = 0;
  static int files[10000];
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit), limit.rlim_cur = limit.rlim_max, setrlimit(RLIMIT_NOFILE, &limit);
  struct peer p = connected("b", true, P_USUAL);
  uint64_t rings = 2;
  peer_value(&p, get_queue_num, &rings), rings = 2;
  struct { uint64_t bytes, offset; uint16_t rings, size; } __attribute__((packed)) wanted = {0, 0, (uint16_t)rings, 32768}, given;
  armed(), say("fired");
  double end = now() + 20;
  for (int n = 0; n < count && got < 10000 && now() < end; n++) {
    int fd = -1;
    if (peer_send(&p, get_inflight_fd, 0, &wanted, sizeof wanted, NULL, 0) && peer_reply(&p, get_inflight_fd, &given, sizeof given, &fd)) {
      if (fd >= 0) files[got++] = fd;
    } else {
      // The session was ended: a new one asks again.
      again(&p, true);
    }
  }
  peer_close(&p), pause_for(0.1);
  uint64_t bytes = 0;
  for (int k = 0; k < got; k++) {
    struct stat status;
    if (!fstat(files[k], &status)) bytes += (uint64_t)status.st_blocks * 512;
  }
  leave("value %llu", (unsigned long long)bytes);
}

// hoard: 253 descriptors with the first bytes of a message that does not end, on each of the sockets b, c, d and e, again and again.
static _Noreturn int hoard(char **words) {
  (void)words;
  const char *names[4] = {"b", "c", "d", "e"};
  int fds[253], most[4] = {253, 253, 253, 253};
  struct peer p[4];
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit), limit.rlim_cur = limit.rlim_max, setrlimit(RLIMIT_NOFILE, &limit);
  double since[4] = {0};
  for (int k = 0; k < 4; k++) p[k].socket = -1;
  for (int k = 0; k < 253; k++) fds[k] = eventfd(0, EFD_CLOEXEC);
  double start = now();
  for (bool first = true;; pause_for(0.002)) {
    for (int k = 0; k < 4; k++) {
      uint32_t request = get_features;
      char byte;
      // A connection from which descriptors were lost was closed at once: a little less the next time, a little more after a while.
      bool closed = p[k].socket < 0 || recv(p[k].socket, &byte, 1, MSG_DONTWAIT) == 0;
      if (!closed && now() - since[k] < 0.9) continue;
      most[k] += closed && p[k].socket >= 0 && now() - since[k] < 0.5 ? (most[k] > 4 ? -4 : 0) : most[k] < 253;
      peer_close(&p[k]);
      if (peer_open(&p[k], path(names[k]), 1)) peer_raw(&p[k], &request, 4, fds, most[k]), since[k] = now();
    }
    if (first && now() - start > 0.3) say("fired"), first = false;
  }
}

// own-socket: passes its own end of the connection as `where`, and dies.
static int own_socket(char **words) {
  const char *where = words[0];
  struct peer p = connected("b", strcmp(where, "half"), P_USUAL | P_BACKEND_REQ | P_CONFIG);
  uint64_t ring = 0;
  struct region memory = make_region(0x100000, 1 << 20);
  if (strcmp(where, "half")) peer_add_region(&p, &memory);
  armed();
  if (!strcmp(where, "backend")) peer_send(&p, set_backend_req_fd, 0, NULL, 0, &p.socket, 1);
  else if (!strcmp(where, "kick")) peer_send(&p, set_vring_kick, 0, &ring, 8, &p.socket, 1);
  else peer_raw(&p, &(uint32_t){get_features}, 4, &p.socket, 1);
  leave("fired");
}

// aio: all of fs.aio-max-nr is taken until the process ends.
static int take_aio(char **words) {
  (void)words;
  static unsigned long contexts[4096];
  int count = 0;
  for (long size = 1 << 20; size > 0 && count < 4096; ) {
    if (syscall(206 /* io_setup */, size, &contexts[count]) == 0) count++; else size /= 2;
  }
  say("armed");
  char line[16];
  if (!fgets(line, sizeof line, stdin)) exit(0);
  exit(0);
}

// full-call: VM b's call descriptor is full and O_NONBLOCK is taken back in a loop, while VM b sends and has frames come.
static int full_call(char **words) {
  (void)words;
  struct vm v;
  if (vm_start(&v, path("b"), 5, 256, 256) != done) leave("refused an honest front-end");
  uint64_t most = UINT64_MAX - 1;
  if (write(v.transmit.call, &most, 8) < 0) {}
  if (write(v.receive.call, &most, 8) < 0) {}
  pthread_t threads[2];
  pthread_create(&threads[0], NULL, take_back, &v.transmit.call), pthread_create(&threads[1], NULL, take_back, &v.receive.call);
  for (uint32_t n = 0; n < v.transmit.size; n++) put_frame(vm_transmit_buffer(&v, n) + net_header, 0xfe, 2, -1, "full"), ring_post(&v.transmit, (uint16_t)n);
  ring_publish(&v.transmit), ring_kick(&v.transmit);
  // The first notification was made, or is being made, once something was used.
  for (double end = now() + 3; !ring_used(&v.transmit) && now() < end;) pause_for(0.001);
  say("fired");
  drive(&v.transmit, 20);
}

static const struct { const char *name; int (*run)(char **); int words; } kinds[] = {
  {"linger", linger, 1}, {"populated", populated, 1}, {"fuse", fuse_attack, 1}, {"counter", counter, 2}, {"chains", chains, 4}, {"chains-packed", chains_packed, 3}, {"honest", honest, 1}, {"sender", sender, 2},
  {"waiters", waiters, 1}, {"waiters-error", waiters_error, 1}, {"flood", flood, 1}, {"inflight", inflight, 1}, {"hoard", hoard, 0}, {"own-socket", own_socket, 1}, {"aio", take_aio, 0},
  {"full-call", full_call, 0},
};

int attack(int count, char **words) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  prctl(PR_SET_TIMERSLACK, 1000);
  signal(SIGPIPE, SIG_IGN);
  if (count < 3) return 64;
  folder = words[1], seed = strtoull(words[2], NULL, 10) | 1;
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    if (!strcmp(words[0], kinds[k].name) && count == 3 + kinds[k].words) return kinds[k].run(words + 3);
  }
  return 64;
}
