// frontend receive SOCKET MAC FIRST FRAMES LAPS SECONDS [acks]
// frontend churn SOCKET MAC FIRST FRAMES LAPS SECONDS ROUNDS [acks]
// frontend send SOCKET MAC TO FIRST FRAMES [announce]
//
// A vhost-user front-end without a virtual machine: a memory, two split rings, and what counts the frames in them. As the
// specification has it (docs/interop/vhost-user.rst of QEMU; virtio 1.2, 2.7 and 5.1), and nothing of the back-end's.
//
// receive  posts buffers and counts the patterned frames that come for MAC, as `sink` does. Bytes between buffers, and behind
//          a frame in its buffer, must stay as they were: STRAY is how many frames touched them. With acks it sends a frame
//          of EtherType 0x88b5 after every 32 that came, with their count, so that the sender need lose none. SIGUSR1 requests
//          a SINK-SO-FAR line. A descriptor that comes back twice, or not, is an error.
// churn    the same, and ROUNDS times: the ring is stopped, the region of the buffers removed (REM_MEM_REG), watched for
//          writes after the reply, added again, the ring started. CHURN is how many rounds there were, and how many writes.
// send     sends the patterned frames FIRST ..< FIRST + FRAMES to TO, and waits until the back-end has given them back.
//          With announce it then has the back-end tell the network where MAC is: SEND_RARP.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "tally.h"

static void fail(const char *what) { perror(what), exit(2); }
static void refuse(const char *what) { fprintf(stderr, "frontend: %s\n", what), exit(3); }
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// --- memory: one region for rings, one for buffers, with room between them ---

enum { ring_size = 256, header = 12, stride = 2048, gap = 64, canary = 0xA5 };
enum { rings_at = 0x100000, buffers_at = 0x40000000, rings_bytes = 1 << 20, buffers_bytes = 2 * ring_size * stride };
// Acknowledgements lie beside the rings: the region of the buffers may be removed.
enum { acks_offset = 0x80000, ack_stride = 128 };
struct region { uint64_t guest, bytes; int fd; uint8_t *memory; };

static struct region make_region(uint64_t guest, uint64_t bytes) {
  struct region r = {guest, bytes, memfd_create("guest", MFD_CLOEXEC), NULL};
  if (r.fd < 0 || ftruncate(r.fd, (off_t)bytes)) fail("memfd");
  r.memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r.fd, 0);
  if (r.memory == MAP_FAILED) fail("mmap");
  return r;
}

// --- messages ---

enum { get_features = 1, set_features, set_owner, set_vring_num = 8, set_vring_addr, set_vring_base, get_vring_base, set_vring_kick,
  set_vring_call, get_protocol_features = 15, set_protocol_features, set_vring_enable = 18, send_rarp, add_mem_reg = 37, rem_mem_reg };
enum { version = 1, is_reply = 4, needs_reply = 8 };
static const uint64_t protocol_bit = 1ull << 30, modern = 1ull << 32, mergeable = 1ull << 15;
static const uint64_t announces = 1ull << 2, reply_ack = 1ull << 3, slots = 1ull << 15;

struct message {
  uint32_t request, flags, size;
  union {
    uint64_t number;
    struct { uint32_t index, value; } state;
    struct { uint32_t index, flags; uint64_t descriptors, used, available, log; } address;
    struct { uint64_t padding, guest, bytes, user, offset; } region;
  } body;
} __attribute__((packed));

static int open_socket(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (s < 0) fail("socket");
  for (double end = now() + 240; connect(s, (struct sockaddr *)&address, sizeof address);) {
    if (now() > end) fail(path);
    usleep(50000);
  }
  return s;
}

static void send_message(int s, struct message *m, int fd) {
  struct iovec bytes = {m, 12 + m->size};
  char control[CMSG_SPACE(sizeof fd)] = {0};
  struct msghdr header = {.msg_iov = &bytes, .msg_iovlen = 1};
  if (fd >= 0) {
    header.msg_control = control, header.msg_controllen = sizeof control;
    struct cmsghdr *c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  if (sendmsg(s, &header, MSG_NOSIGNAL) != (ssize_t)bytes.iov_len) fail("sendmsg");
}

static void receive_reply(int s, struct message *m, uint32_t request) {
  if (recv(s, m, 12, MSG_WAITALL) != 12) fail("no reply");
  if (m->request != request || !(m->flags & is_reply) || m->size > sizeof m->body) refuse("a reply that is none");
  if (recv(s, &m->body, m->size, MSG_WAITALL) != (ssize_t)m->size) fail("half a reply");
}

static uint64_t ask_number(int s, uint32_t request) {
  struct message m = {.request = request, .flags = version};
  send_message(s, &m, -1), receive_reply(s, &m, request);
  return m.body.number;
}

// Sends, and waits until the back-end has done it: REPLY_ACK.
static void order(int s, struct message m, uint32_t size, int fd) {
  m.flags = version | needs_reply, m.size = size;
  uint32_t request = m.request;
  send_message(s, &m, fd), receive_reply(s, &m, request);
  if (m.body.number) fprintf(stderr, "frontend: request %u was refused\n", request), exit(3);
}
static void order_number(int s, uint32_t request, uint64_t number, int fd) {
  order(s, (struct message){.request = request, .body.number = number}, 8, fd);
}
static void order_state(int s, uint32_t request, uint32_t index, uint32_t value) {
  order(s, (struct message){.request = request, .body.state = {index, value}}, 8, -1);
}
// What is a user address for the back-end is any number that is ours alone: the guest address, moved.
static const uint64_t user_offset = 1ull << 44;
static void order_region(int s, uint32_t request, const struct region *r) {
  order(s, (struct message){.request = request, .body.region = {0, r->guest, r->bytes, r->guest + user_offset, 0}}, 40, request == add_mem_reg ? r->fd : -1);
}

// --- rings ---

struct ring {
  uint32_t index;
  struct vring view;
  uint16_t used;
  int kick, call;
};

static void make_ring(struct ring *r, uint32_t index, const struct region *memory) {
  r->index = index, r->used = 0;
  vring_init(&r->view, ring_size, memory->memory + 0x10000 * index, 4096);
  r->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), r->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (r->kick < 0 || r->call < 0) fail("eventfd");
}

static void start_ring(int s, struct ring *r, const struct region *memory, uint16_t base) {
  uint64_t first = memory->guest + user_offset - (uint64_t)(uintptr_t)memory->memory;
  order_state(s, set_vring_num, r->index, ring_size);
  order_state(s, set_vring_base, r->index, base);
  order(s, (struct message){.request = set_vring_addr, .body.address = {r->index, 0, first + (uint64_t)(uintptr_t)r->view.desc,
    first + (uint64_t)(uintptr_t)r->view.used, first + (uint64_t)(uintptr_t)r->view.avail, 0}}, 40, -1);
  order_number(s, set_vring_call, r->index, r->call);
  order_number(s, set_vring_kick, r->index, r->kick);
  order_state(s, set_vring_enable, r->index, 1);
}

static uint16_t stop_ring(int s, struct ring *r) {
  struct message m = {.request = get_vring_base, .flags = version, .size = 8, .body.state = {r->index, 0}};
  send_message(s, &m, -1), receive_reply(s, &m, get_vring_base);
  return (uint16_t)m.body.state.value;
}

static void post(struct ring *r, uint16_t descriptor) {
  uint16_t place = r->view.avail->idx;
  r->view.avail->ring[place % ring_size] = descriptor;
  __atomic_store_n(&r->view.avail->idx, (uint16_t)(place + 1), __ATOMIC_RELEASE);
}
static void kick(struct ring *r) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (!(__atomic_load_n(&r->view.used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY)) eventfd_write(r->kick, 1);
}
// The next used element, or null.
static const struct vring_used_elem *take(struct ring *r) {
  if (__atomic_load_n(&r->view.used->idx, __ATOMIC_ACQUIRE) == r->used) return NULL;
  return &r->view.used->ring[r->used++ % ring_size];
}
static void wait_for(struct ring *r) {
  struct pollfd readable = {r->call, POLLIN, 0};
  eventfd_t value;
  if (poll(&readable, 1, 100) > 0) eventfd_read(r->call, &value);
}

// --- what it does ---

static struct region rings, buffers;
static struct ring receive_ring, send_ring;
static struct tally tally;
static uint64_t stray, came;
static int acks;
static uint8_t outstanding[ring_size];
static volatile sig_atomic_t asked, ended;
static void on_signal(int number) { *(number == SIGUSR1 ? &asked : &ended) = 1; }

static uint8_t *buffer(uint16_t n) { return buffers.memory + (size_t)n * stride; }
static void clean(uint16_t n) { memset(buffer(n), canary, stride); }
static int is_clean(const uint8_t *from, size_t count) {
  for (size_t k = 0; k < count; k++) if (from[k] != canary) return 0;
  return 1;
}

static void begin(int s) {
  uint64_t features = ask_number(s, get_features), wanted = modern | protocol_bit | mergeable;
  if ((features & wanted) != wanted) refuse("the back-end offers too little");
  if (!(ask_number(s, get_protocol_features) & reply_ack)) refuse("the back-end does not answer");
  struct message m = {.request = set_protocol_features, .flags = version, .size = 8, .body.number = announces | reply_ack | slots};
  send_message(s, &m, -1);
  order_number(s, set_features, wanted, -1);
  order(s, (struct message){.request = set_owner}, 0, -1);
  rings = make_region(rings_at, rings_bytes), buffers = make_region(buffers_at, buffers_bytes);
  memset(buffers.memory, canary, buffers.bytes);
  order_region(s, add_mem_reg, &rings), order_region(s, add_mem_reg, &buffers);
  make_ring(&receive_ring, 0, &rings), make_ring(&send_ring, 1, &rings);
}

// Reports how many have come. With `is_restart` what is on the way is lost, and is not to be waited for. An acknowledgement that
// finds no room is made up for by the next.
static void acknowledge(int is_restart) {
  static uint16_t sent, done;
  while (take(&send_ring)) done++;
  if ((uint16_t)(sent - done) == ring_size) return;
  uint16_t n = (uint16_t)(sent++ % ring_size);
  uint8_t *frame = rings.memory + acks_offset + (size_t)n * ack_stride + header;
  memset(frame - header, 0, header + smallest_frame);
  // To nobody, so that no other VM hears it.
  static const uint8_t nobody[6] = {2, 0, 0, 0, 0, 0xac};
  memcpy(frame, nobody, 6), memcpy(frame + 6, tally.mac, 6), put16(frame + 12, 0x88b5), put32(frame + 14, (uint32_t)came);
  frame[18] = (uint8_t)is_restart;
  send_ring.view.desc[n] = (struct vring_desc){rings.guest + (uint64_t)(frame - header - rings.memory), header + smallest_frame, 0, 0};
  post(&send_ring, n), kick(&send_ring);
}

// Every used buffer, up to a ring's worth, is looked at and posted again. Answers how many there were.
static int collect(void) {
  int count = 0;
  for (const struct vring_used_elem *e; count < ring_size && (e = take(&receive_ring)); count++) {
    uint16_t n = (uint16_t)e->id;
    uint32_t length = e->len;
    const uint8_t *bytes = buffer(n);
    if (n >= ring_size || length < header || length > stride - gap) refuse("a used element that cannot be");
    if (!outstanding[n]) refuse("a descriptor that was given back twice");
    tally_frame(&tally, bytes + header, length - header);
    if (!is_clean(bytes + length, stride - length)) stray++;
    clean(n), post(&receive_ring, n);
    came++;
    if (acks && came % 32 == 0) acknowledge(0);
  }
  if (count) kick(&receive_ring);
  return count;
}

static int expects_more(double end) { return !ended && tally_missing(&tally) && now() < end; }

// The ring stops, its buffers' region goes, is watched, and comes again.
static int churn_once(int s) {
  uint16_t base = stop_ring(s, &receive_ring);
  collect();
  order_region(s, rem_mem_reg, &buffers);
  // What comes from here on is nobody's to write.
  memset(buffers.memory, canary, buffers.bytes);
  usleep(2000);
  int wrong = !is_clean(buffers.memory, buffers.bytes);
  order_region(s, add_mem_reg, &buffers);
  start_ring(s, &receive_ring, &rings, base);
  if (acks) acknowledge(1);
  return wrong;
}

static int receive(int s, long seconds, long rounds) {
  long done = 0, wrong = 0;
  double end = now() + (double)seconds;
  tally_begin(&tally);
  for (uint16_t n = 0; n < ring_size; n++) {
    receive_ring.view.desc[n] = (struct vring_desc){buffers.guest + (uint64_t)n * stride, stride - gap, VRING_DESC_F_WRITE, 0};
    outstanding[n] = 1, post(&receive_ring, n);
  }
  start_ring(s, &receive_ring, &rings, 0);
  if (acks) start_ring(s, &send_ring, &rings, 0);
  kick(&receive_ring);
  printf("SINK-READY %02x\n", tally.mac[5]), fflush(stdout);
  // Amid traffic: with some frames of a burst in the ring, and more to come. Without any a round is made now and then.
  uint64_t next = came + 16;
  double latest = now() + 1;
  while (rounds ? !ended && done < rounds && now() < end : expects_more(end)) {
    if (rounds && (came >= next || now() >= latest)) wrong += churn_once(s), done++, next = came + 16, latest = now() + 1;
    if (asked) asked = 0, tally_print(&tally, "SINK-SO-FAR", 0);
    if (!collect()) wait_for(&receive_ring);
  }
  // What came twice comes late: listen until a while after the last. Where frames come without end, it is not waited for.
  for (double quiet = now() + 0.3; !rounds && !ended && now() < quiet;) {
    if (collect()) quiet = now() + 0.3;
    wait_for(&receive_ring);
  }
  if (acks) stop_ring(s, &send_ring);
  uint16_t base = stop_ring(s, &receive_ring);
  while (collect()) {}
  // Where the ring stopped is behind what was given back, and nothing else: no descriptor is lost.
  if (base != receive_ring.used) fprintf(stderr, "frontend: the ring stopped at %u, and %u were given back\n", base, receive_ring.used), stray++;
  printf("STRAY %lu\n", stray);
  if (rounds) printf("CHURN %ld rounds %ld writes after the reply\n", done, wrong);
  tally_print(&tally, "SINK", 0);
  return stray || wrong || tally.bad || tally.duplicate || tally.reordered ? 1 : 0;
}

static int send_frames(int s, const uint8_t to[6], uint32_t first, uint32_t frames, int announces_itself) {
  uint32_t posted = 0, done = 0;
  start_ring(s, &send_ring, &rings, 0);
  for (double end = now() + 600; done < frames && now() < end;) {
    for (; posted < frames && posted - done < ring_size / 2; posted++) {
      uint16_t n = (uint16_t)(posted % ring_size);
      memset(buffer(n), 0, header);
      size_t length = make_frame(buffer(n) + header, first + posted, to);
      // Under its own address: a VM sends under no other.
      memcpy(buffer(n) + header + 6, tally.mac, 6);
      send_ring.view.desc[n] = (struct vring_desc){buffers.guest + (uint64_t)n * stride, (uint32_t)(header + length), 0, 0};
      post(&send_ring, n);
    }
    kick(&send_ring);
    while (take(&send_ring)) done++;
    if (done < frames) wait_for(&send_ring);
  }
  uint64_t mac = 0;
  memcpy(&mac, tally.mac, 6);
  if (announces_itself) order_number(s, send_rarp, mac, -1);
  stop_ring(s, &send_ring);
  printf("SENT %u of %u\n", done, frames);
  return done != frames;
}

int main(int count, char **words) {
  const char *usage = "usage: frontend receive|churn SOCKET MAC FIRST FRAMES LAPS SECONDS [ROUNDS] [acks] | send SOCKET MAC TO FIRST FRAMES [announce]\n";
  uint8_t to[6];
  if (count < 7 || !parse_mac(words[3], tally.mac)) return fputs(usage, stderr), 64;
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGTERM, &action, NULL), sigaction(SIGUSR1, &action, NULL);
  int s = open_socket(words[2]);
  begin(s);
  if (!strcmp(words[1], "send")) {
    if (!parse_mac(words[4], to)) return fputs(usage, stderr), 64;
    return send_frames(s, to, (uint32_t)atol(words[5]), (uint32_t)atol(words[6]), count > 7 && !strcmp(words[7], "announce"));
  }
  int churns = !strcmp(words[1], "churn");
  if (count < 8 + churns) return fputs(usage, stderr), 64;
  tally.first = (uint32_t)atol(words[4]), tally.frames = (uint32_t)atol(words[5]), tally.laps = (uint32_t)atol(words[6]);
  acks = count > 8 + churns && !strcmp(words[8 + churns], "acks");
  return receive(s, atol(words[7]), churns ? atol(words[8]) : 0);
}
