#include "peer.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { version = 1, is_reply = 4, needs_reply = 8, most_descriptors = 253 };

void fail(const char *what) { perror(what), _exit(2); }
double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
void pause_for(double seconds) {
  struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
  while (nanosleep(&t, &t) && errno == EINTR) {}
}

// --- messages ---

bool peer_open(struct peer *p, const char *path, double timeout) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  *p = (struct peer){.socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  if (p->socket < 0) return false;
  struct timeval limit = {(time_t)timeout, (suseconds_t)((timeout - (double)(time_t)timeout) * 1e6)};
  setsockopt(p->socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(p->socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (!connect(p->socket, (struct sockaddr *)&address, sizeof address)) return true;
  peer_close(p);
  return false;
}
void peer_close(struct peer *p) {
  if (p->socket >= 0) close(p->socket);
  p->socket = -1;
}

bool peer_raw(struct peer *p, const void *bytes, size_t size, const int *fds, int count) {
  struct iovec part = {(void *)(uintptr_t)bytes, size};
  union { struct cmsghdr header; char bytes[CMSG_SPACE(most_descriptors * sizeof(int))]; } control;
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = &control, message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    control.header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN((size_t)count * sizeof(int))};
    memcpy(CMSG_DATA(&control.header), fds, (size_t)count * sizeof(int));
  }
  return sendmsg(p->socket, &message, MSG_NOSIGNAL) == (ssize_t)size;
}

bool peer_send(struct peer *p, uint32_t request, uint32_t flags, const void *body, uint32_t size, const int *fds, int count) {
  uint8_t bytes[4096];
  uint32_t header[3] = {request, version | flags, size};
  if (size + sizeof header > sizeof bytes) return false;
  memcpy(bytes, header, sizeof header);
  if (size) memcpy(bytes + sizeof header, body, size);
  return peer_raw(p, bytes, sizeof header + size, fds, count);
}

static bool receive_all(int s, void *at, size_t size, int *fd) {
  struct iovec part = {at, size};
  union { struct cmsghdr header; char bytes[CMSG_SPACE(8 * sizeof(int))]; } control;
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t got = recvmsg(s, &message, MSG_WAITALL | MSG_CMSG_CLOEXEC);
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    int count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int)), fds[8];
    memcpy(fds, CMSG_DATA(c), (size_t)count * sizeof(int));
    for (int k = 0; k < count; k++) if (k == 0 && fd && *fd < 0) *fd = fds[0]; else close(fds[k]);
  }
  return got == (ssize_t)size;
}

bool peer_reply(struct peer *p, uint32_t request, void *body, uint32_t size, int *fd) {
  uint32_t header[3];
  uint8_t bytes[512] = {0};
  int none = -1, *into = fd ? fd : &none;
  *into = -1;
  bool came = receive_all(p->socket, header, sizeof header, into) && header[0] == request && header[1] & is_reply && header[2] <= sizeof bytes
    && (header[2] == 0 || receive_all(p->socket, bytes, header[2], into));
  if (!fd && none >= 0) close(none);
  if (came) memcpy(body, bytes, size);
  return came;
}

_Thread_local void (*peer_timing)(bool begins);
static bool exchange(struct peer *p, uint32_t request, uint32_t flags, const void *body, uint32_t size, const int *fds, int count, void *reply, uint32_t reply_size) {
  if (peer_timing) peer_timing(true);
  bool came = peer_send(p, request, flags, body, size, fds, count) && peer_reply(p, request, reply, reply_size, NULL);
  if (peer_timing) peer_timing(false);
  return came;
}

bool peer_value(struct peer *p, uint32_t request, uint64_t *value) {
  return exchange(p, request, 0, NULL, 0, NULL, 0, value, sizeof *value);
}

int peer_order(struct peer *p, uint32_t request, const void *body, uint32_t size, int fd) {
  uint64_t result;
  if (!exchange(p, request, needs_reply, body, size, &fd, fd >= 0, &result, sizeof result)) return lost;
  return result ? refused : done;
}
int peer_order_value(struct peer *p, uint32_t request, uint64_t value, int fd) { return peer_order(p, request, &value, sizeof value, fd); }
int peer_order_state(struct peer *p, uint32_t request, uint32_t index, uint32_t value) {
  return peer_order(p, request, (uint32_t[]){index, value}, 8, -1);
}

bool peer_negotiate(struct peer *p, uint64_t features, uint64_t protocol) {
  uint64_t offered, offered_protocol;
  if (!peer_value(p, get_features, &offered) || !peer_value(p, get_protocol_features, &offered_protocol)) return false;
  p->features = offered & features, p->protocol = offered_protocol & protocol;
  return peer_send(p, set_protocol_features, 0, &p->protocol, 8, NULL, 0) && peer_order(p, set_owner, NULL, 0, -1) == done
    && peer_order_value(p, set_features, p->features, -1) == done;
}

// --- memory ---

struct region make_unmapped(uint64_t guest, uint64_t bytes) {
  struct region r = {.guest = guest, .bytes = bytes, .fd = memfd_create("guest", MFD_CLOEXEC)};
  if (r.fd < 0 || ftruncate(r.fd, (off_t)bytes)) fail("memfd");
  return r;
}
struct region make_region(uint64_t guest, uint64_t bytes) {
  struct region r = make_unmapped(guest, bytes);
  r.memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r.fd, 0);
  if (r.memory == MAP_FAILED) fail("mmap");
  return r;
}

struct description { uint64_t guest, bytes, user, offset; };
static struct description describe(const struct region *r) { return (struct description){r->guest, r->bytes, r->guest + USER_OFFSET, r->offset}; }

static int region_message(struct peer *p, uint32_t request, const struct region *r, int fd) {
  struct { uint64_t padding; struct description region; } body = {0, describe(r)};
  return peer_order(p, request, &body, sizeof body, fd);
}
int peer_add_region(struct peer *p, const struct region *r) { return region_message(p, add_mem_reg, r, r->fd); }
int peer_remove_region(struct peer *p, const struct region *r) { return region_message(p, rem_mem_reg, r, -1); }

int peer_table(struct peer *p, const struct region *regions, int count) {
  struct { uint32_t count, padding; struct description regions[8]; } body = {.count = (uint32_t)count};
  int fds[8];
  uint64_t result;
  for (int n = 0; n < count; n++) body.regions[n] = describe(&regions[n]), fds[n] = regions[n].fd;
  uint32_t size = 8 + (uint32_t)count * sizeof(struct description);
  if (!exchange(p, set_mem_table, needs_reply, &body, size, fds, count, &result, sizeof result)) return lost;
  return result ? refused : done;
}

// --- rings ---

uint64_t make_ring(struct ring *r, uint32_t index, uint32_t size, const struct region *memory, uint64_t offset) {
  *r = (struct ring){.index = index, .size = size, .memory = memory};
  vring_init(&r->view, size, memory->memory + offset, 4096);
  r->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), r->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), r->error = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (r->kick < 0 || r->call < 0 || r->error < 0) fail("eventfd");
  return (offset + vring_size(size, 4096) + 4095) & ~4095ull;
}

int start_ring(struct peer *p, struct ring *r, uint16_t base) {
  uint64_t first = r->memory->guest + USER_OFFSET - (uint64_t)(uintptr_t)r->memory->memory;
  struct { uint32_t index, flags; uint64_t descriptors, used, available, log; } address = {r->index, 0,
    first + (uint64_t)(uintptr_t)r->view.desc, first + (uint64_t)(uintptr_t)r->view.used, first + (uint64_t)(uintptr_t)r->view.avail, 0};
  int result = peer_order_value(p, set_vring_err, r->index, r->error);
  if (result == done) result = peer_order_value(p, set_vring_call, r->index, r->call);
  if (result == done) result = peer_order_state(p, set_vring_num, r->index, r->size);
  if (result == done) result = peer_order_state(p, set_vring_base, r->index, base);
  if (result == done) result = peer_order(p, set_vring_addr, &address, sizeof address, -1);
  if (result == done) result = peer_order_value(p, set_vring_kick, r->index, r->kick);
  if (result == done) result = peer_order_state(p, set_vring_enable, r->index, 1);
  // A ring that cannot run raises its error descriptor, and is no refused message.
  uint64_t raised;
  if (result == done && read(r->error, &raised, sizeof raised) == sizeof raised) result = refused;
  return result;
}

int stop_ring(struct peer *p, uint32_t index) {
  uint32_t state[2] = {index, 0};
  if (!exchange(p, get_vring_base, 0, state, sizeof state, NULL, 0, state, sizeof state)) return lost;
  return (int)(state[1] & 0xffff);
}

void ring_post(struct ring *r, uint16_t head) { r->view.avail->ring[r->next++ & (r->size - 1)] = head; }
void ring_publish(struct ring *r) { __atomic_store_n(&r->view.avail->idx, r->next, __ATOMIC_RELEASE); }
void ring_kick(struct ring *r) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (!(__atomic_load_n(&r->view.used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY)) eventfd_write(r->kick, 1);
}
uint16_t ring_used(const struct ring *r) { return (uint16_t)(__atomic_load_n(&r->view.used->idx, __ATOMIC_ACQUIRE) - r->seen); }

// --- a virtual machine ---

int vm_start(struct vm *v, const char *path, double timeout, uint32_t receive_size, uint32_t transmit_size) {
  *v = (struct vm){.peer.socket = -1};
  if (!peer_open(&v->peer, path, timeout) || !peer_negotiate(&v->peer, F_VERSION_1 | F_PROTOCOL | F_MERGEABLE | F_INDIRECT, P_USUAL)) return lost;
  uint64_t buffers = 1 << 20;
  v->memory = make_region(0x100000, buffers + (uint64_t)(receive_size + transmit_size) * buffer_stride);
  int result = peer_table(&v->peer, &v->memory, 1);
  uint64_t at = 0;
  if (result == done && receive_size) {
    at = make_ring(&v->receive, 0, receive_size, &v->memory, at);
    for (uint32_t n = 0; n < receive_size; n++) {
      v->receive.view.desc[n] = (struct vring_desc){v->memory.guest + buffers + (uint64_t)n * buffer_stride, buffer_stride, VRING_DESC_F_WRITE, 0};
      ring_post(&v->receive, (uint16_t)n);
    }
    ring_publish(&v->receive);
    result = start_ring(&v->peer, &v->receive, 0);
  }
  if (result == done && transmit_size) {
    make_ring(&v->transmit, 1, transmit_size, &v->memory, at);
    for (uint32_t n = 0; n < transmit_size; n++) {
      uint64_t place = buffers + (uint64_t)(receive_size + n) * buffer_stride;
      v->transmit.view.desc[n] = (struct vring_desc){v->memory.guest + place, net_header + frame_bytes, 0, 0};
    }
    result = start_ring(&v->peer, &v->transmit, 0);
  }
  return result;
}
uint8_t *vm_transmit_buffer(struct vm *v, uint32_t n) {
  return v->memory.memory + (v->transmit.view.desc[n].addr - v->memory.guest);
}
void vm_end(struct vm *v) {
  peer_close(&v->peer);
  if (v->memory.memory) munmap(v->memory.memory, v->memory.bytes), close(v->memory.fd);
  struct ring *rings[2] = {&v->receive, &v->transmit};
  for (int k = 0; k < 2; k++) if (rings[k]->size) close(rings[k]->kick), close(rings[k]->call), close(rings[k]->error);
  *v = (struct vm){.peer.socket = -1};
}

size_t put_frame(uint8_t *at, uint8_t to, uint8_t from, int vlan, const char *text) {
  size_t length = 12;
  memset(at, 0, frame_bytes);
  if (to == 0xff) memset(at, 0xff, 6); else at[0] = 2, at[5] = to;
  at[6] = 2, at[11] = from;
  if (vlan >= 0) at[12] = 0x81, at[13] = 0, at[14] = (uint8_t)(vlan >> 8), at[15] = (uint8_t)vlan, length = 16;
  at[length] = 0x88, at[length + 1] = 0xb5;
  snprintf((char *)at + length + 2, frame_bytes - length - 2, "%s", text);
  return frame_bytes;
}

void overfill(int event) {
  aio_context_t context = 0;
  uint64_t most = UINT64_MAX - 1;
  int nothing = memfd_create("nothing", MFD_CLOEXEC);
  if (write(event, &most, sizeof most) < 0 && errno != EAGAIN) return;
  if (syscall(SYS_io_setup, 1, &context)) return;
  struct iocb request = {.aio_fildes = (uint32_t)nothing, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_flags = IOCB_FLAG_RESFD, .aio_resfd = (uint32_t)event};
  struct iocb *requests = &request;
  syscall(SYS_io_submit, context, 1, &requests);
  close(nothing);
}
