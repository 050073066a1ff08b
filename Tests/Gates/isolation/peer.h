// A vhost-user front-end for the isolation gate: messages, guest memory and split rings. It implements the specification
// (docs/interop/vhost-user.rst of QEMU; virtio 1.2, 2.7) and shares no code with the back-end. No call here waits longer
// than the connection's timeout, and none ends the process because the back-end refused something: refusal is a result.
#ifndef PEER_H
#define PEER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { get_features = 1, set_features, set_owner, reset_owner, set_mem_table, set_log_base, set_log_fd,
  set_vring_num = 8, set_vring_addr, set_vring_base, get_vring_base, set_vring_kick, set_vring_call, set_vring_err,
  get_protocol_features = 15, set_protocol_features, get_queue_num, set_vring_enable, send_rarp, set_mtu, set_backend_req_fd,
  get_inflight_fd = 31, set_inflight_fd, add_mem_reg = 37, rem_mem_reg };

#define F_MERGEABLE (1ull << 15)
#define F_INDIRECT (1ull << 28)
#define F_PROTOCOL (1ull << 30)
#define F_VERSION_1 (1ull << 32)
#define F_PACKED (1ull << 34)
#define P_LOG (1ull << 1)
#define P_REPLY_ACK (1ull << 3)
#define P_BACKEND_REQ (1ull << 5)
#define P_CONFIG (1ull << 9)
#define P_INFLIGHT (1ull << 12)
#define P_SLOTS (1ull << 15)
// What an ordinary front-end negotiates: everything but BACKEND_REQ and CONFIG.
#define P_USUAL 0xb01full

// Seconds of CLOCK_MONOTONIC.
double now(void);
void pause_for(double seconds);
_Noreturn void fail(const char *what);

struct peer { int socket; uint64_t features, protocol; };
// Results of an order.
enum { done = 0, refused = 1, lost = -1 };

bool peer_open(struct peer *p, const char *path, double timeout);
void peer_close(struct peer *p);
// Sends one message. The number of descriptors is at most 253. False if the connection is lost or the socket is full.
bool peer_send(struct peer *p, uint32_t request, uint32_t flags, const void *body, uint32_t size, const int *fds, int count);
// Sends raw bytes with descriptors.
bool peer_raw(struct peer *p, const void *bytes, size_t size, const int *fds, int count);
// Receives the reply to `request`. `fd` receives the descriptor that came with it, or -1; NULL if none is wanted.
bool peer_reply(struct peer *p, uint32_t request, void *body, uint32_t size, int *fd);
// Called on this thread before each message that is answered, and after its answer.
extern _Thread_local void (*peer_timing)(bool begins);
// Requests a 64-bit value.
bool peer_value(struct peer *p, uint32_t request, uint64_t *value);
// Sends with NEED_REPLY and waits for the acknowledgement.
int peer_order(struct peer *p, uint32_t request, const void *body, uint32_t size, int fd);
int peer_order_value(struct peer *p, uint32_t request, uint64_t value, int fd);
int peer_order_state(struct peer *p, uint32_t request, uint32_t index, uint32_t value);
// Opens the session: features and protocol features that are wanted and offered.
bool peer_negotiate(struct peer *p, uint64_t features, uint64_t protocol);

struct region { uint64_t guest, bytes, offset; int fd; uint8_t *memory; };
#define USER_OFFSET (1ull << 44)
struct region make_region(uint64_t guest, uint64_t bytes);
// The same file at another offset, or a sparse region that is not mapped here.
struct region make_unmapped(uint64_t guest, uint64_t bytes);
int peer_add_region(struct peer *p, const struct region *r);
int peer_remove_region(struct peer *p, const struct region *r);
int peer_table(struct peer *p, const struct region *regions, int count);

struct ring { uint32_t index, size; struct vring view; const struct region *memory; uint16_t next, seen; int kick, call, error; };
// Places a ring of `size` at `offset` of a region. Returns the first free offset behind it.
uint64_t make_ring(struct ring *r, uint32_t index, uint32_t size, const struct region *memory, uint64_t offset);
int start_ring(struct peer *p, struct ring *r, uint16_t base);
// Stops it: GET_VRING_BASE. Returns the base, or -1 if the connection is lost.
int stop_ring(struct peer *p, uint32_t index);
void ring_post(struct ring *r, uint16_t head);
void ring_publish(struct ring *r);
void ring_kick(struct ring *r);
// The number of used elements that were not read yet.
uint16_t ring_used(const struct ring *r);

// A front-end with memory and one or two rings, as a guest with an ordinary driver has it.
struct vm { struct peer peer; struct region memory; struct ring receive, transmit; };
enum { buffer_stride = 2048, net_header = 12, frame_bytes = 60 };
// Opens VM `path`, and starts the rings that have a size. Returns done, refused or lost.
int vm_start(struct vm *v, const char *path, double timeout, uint32_t receive_size, uint32_t transmit_size);
void vm_end(struct vm *v);
uint8_t *vm_transmit_buffer(struct vm *v, uint32_t n);
// Writes an Ethernet frame of frame_bytes bytes; addresses are 02:00:00:00:00:xx, 0xff is broadcast. Returns its length.
size_t put_frame(uint8_t *at, uint8_t to, uint8_t from, int vlan, const char *text);

// The kernel itself raises an eventfd here, which also works at the counter's limit: io_submit(2), IOCB_FLAG_RESFD.
void overfill(int event);

#endif
