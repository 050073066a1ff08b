// The receive turn as one would write it in C, beside Sources/Datapath/ReceivePath.swift: read them together.
//
// The same in both. Both halves go through runs: entries of the guest's ring, of the card's and of the ledger that follow one
// another, as many as do in all three. Of each lent frame: one load of the available entry, the check of the head, two loads
// of its descriptor, flags and length, the region of the previous buffer first, the mark that it is out, the ledger's entry,
// the card's two words; DD with acquire, EOP, damage, the limit of length, the header's line asked for 12 frames ahead,
// twelve bytes of header, the used element in one store, the mark taken back. Of each run: that it lies in the card's ring. Of each
// batch: the available index with acquire, one doorbell behind a release fence, the used index with release, the full fence,
// used_event, six cells, and the questions whether the path has stopped, is plain, copies, logs or discards.
//
// In neither: what a frame that is not lent needs. Here it stops the path; there it goes the long way. Both ways out are
// calls that are not inlined.
//
// Only there: which of two ring formats the queue has (this one is split), asked twice a batch; how far ahead a header's line is
// asked for, by the length of the batch before; whether the driver is asked at once, or in the next turn. Only here: nothing.
#include <CLinux.h>

#include "CReceiveTurn.h"

#include <stdbool.h>
#include <stdlib.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum { BATCH = 128, PREFETCH_DISTANCE = 12, NET_HEADER = 12, DESCRIPTOR = 16 };
enum { DESC_F_WRITE = 2 };

// An advanced receive descriptor as it is written back, bits 63:0 of its second half. 82599 datasheet 7.1.6.2.
#define RX_DD (1ull << 0)
#define RX_EOP (1ull << 1)
#define RX_L4I (1ull << 5)
#define RX_RXE (1ull << 29)
#define RX_L4E (1ull << 30)
#define RX_IPE (1ull << 31)

enum kind { LENT, LENT_APART, PIECE, CHAIN };
enum mode { AUTO, REQUIRED, COPY };
enum reason { RUNNING, INDEX_RAN_AHEAD, NOT_PLAIN, ODD_BUFFER, ODD_FRAME };

struct entry {
  uint8_t *base;
  uint32_t byte_count;
  uint16_t id;
  uint8_t kind, reason;
};

struct receive_path {
  enum reason stop_reason, fault;
  enum mode mode;
  bool is_discarding, is_logging, wants_signal;
  // The guest's ring.
  uint8_t *descriptors, *available, *used;
  uint8_t *outstanding;
  uint32_t queue_mask;
  uint16_t next_available, next_used;
  // Its memory.
  const struct receive_region *regions;
  uint32_t region_count, last_region;
  uint64_t window_base;
  uint32_t need;
  uint64_t checked_word;
  // The ledger.
  struct entry *entries;
  uint32_t entry_mask, front, tail, waiting;
  uint32_t slot_front, slot_tail;
  // The card's ring.
  uint8_t *ring;
  uint32_t ring_size, next, oldest;
  uint64_t damage, checksum_fields, checksum_right;
  void *tail_register;
  // What was counted.
  uint64_t *cells;
  uint64_t settled_frames;
};

static inline void add(uint64_t *cells, enum receive_cell cell, uint64_t amount) {
  sl_store64(cells + cell, sl_load64(cells + cell) + amount);
}
static inline uint32_t room(const struct receive_path *path) {
  return (path->oldest > path->next ? path->oldest : path->oldest + path->ring_size) - path->next - 1;
}
static inline void check(bool holds) {
  if (unlikely(!holds)) __builtin_trap();
}
static inline bool is_plain(const struct receive_path *path) {
  return path->waiting == 0 && path->tail - path->front == path->slot_tail - path->slot_front && path->mode != COPY;
}

__attribute__((noinline, cold)) static void stop(struct receive_path *path, enum reason reason) {
  if (path->fault == RUNNING) path->fault = reason;
  if (path->stop_reason == RUNNING) path->stop_reason = reason;
}

__attribute__((noinline)) static uint8_t *search(struct receive_path *path, uint64_t address, uint32_t length) {
  for (uint32_t i = 0; i < path->region_count; i++) {
    const struct receive_region *region = path->regions + i;
    uint64_t offset = address - region->start;
    if (offset < region->byte_count && length <= region->byte_count - offset) {
      path->last_region = i;
      return region->host + offset;
    }
  }
  return NULL;
}

static inline uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

// Posts buffers that can be lent as they are, as many as follow one another; *run is how many those are.
static inline uint32_t lend_run(struct receive_path *restrict path, uint32_t most, uint32_t *run) {
  uint32_t mask = path->queue_mask, place = path->next_available & mask;
  uint32_t next = path->next, entry_place = path->tail & path->entry_mask;
  most = least(most, least(room(path), path->ring_size - next));
  check(next + most <= path->ring_size);
  most = least(most, mask + 1 - place);
  most = least(most, path->entry_mask + 1 - entry_place);
  *run = most;

  const uint8_t *heads = path->available + 4 + 2 * place, *descriptors = path->descriptors;
  uint8_t *outstanding = path->outstanding, *posted = path->ring + DESCRIPTOR * next;
  struct entry *entries = path->entries + entry_place;
  uint32_t need = path->need;
  uint64_t to_bus = path->window_base + NET_HEADER;
  const struct receive_region *region = path->regions + path->last_region;
  size_t n = 0;
  for (; n < most; n++) {
    uint32_t head = sl_load16(heads + 2 * n);
    if (unlikely(head > mask || outstanding[head] != 0)) break;
    const uint8_t *descriptor = descriptors + DESCRIPTOR * head;
    uint64_t word = sl_load64(descriptor + 8), address = sl_load64(descriptor);
    uint32_t length = (uint32_t)word;
    if (unlikely((uint16_t)(word >> 32) != DESC_F_WRITE || length < need)) break;
    uint64_t offset = address - region->start;
    uint8_t *host;
    if (likely(offset < region->byte_count && length <= region->byte_count - offset)) {
      host = region->host + offset;
    } else {
      host = search(path, address, length);
      if (host == NULL) break;
      region = path->regions + path->last_region;
    }
    outstanding[head] = 1;
    entries[n] = (struct entry){host, length, (uint16_t)head, LENT, 0};
    sl_store64(posted + DESCRIPTOR * n, to_bus + address);
    sl_store64(posted + DESCRIPTOR * n + 8, 0);
  }
  uint32_t count = (uint32_t)n;
  path->next_available += count;
  path->next = next + count == path->ring_size ? 0 : next + count;
  path->tail += count;
  path->slot_tail += count;
  return count;
}

static __attribute__((noinline)) void lend(struct receive_path *restrict path) {
  uint32_t pending = 0;
  if (likely(path->fault == RUNNING)) {
    pending = (uint16_t)(sl_load16_acquire(path->available + 2) - path->next_available);
    if (unlikely(pending > path->queue_mask + 1)) {
      stop(path, INDEX_RAN_AHEAD);
      pending = 0;
    }
  }
  if (unlikely(!is_plain(path))) {
    stop(path, NOT_PLAIN);
    return;
  }
  uint32_t count = least(least(pending, BATCH), room(path)), rung = path->slot_tail;
  if (count == 0) return;
  while (count > 0) {
    uint32_t run, done = lend_run(path, count, &run);
    count -= done;
    if (done < run || run == 0) {
      stop(path, ODD_BUFFER);
      break;
    }
  }
  if (path->slot_tail != rung) {
    sl_mmio_write32(path->tail_register, path->next);
    add(path->cells, RECEIVE_DOORBELLS, 1);
  }
}

// virtio 1.3, 2.7.7.2.
static inline bool crosses(uint16_t event, uint16_t old, uint16_t new) {
  return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

// Gives back lent buffers that have a whole frame each, as many as follow one another; `offset` were given back already.
static inline uint32_t settle_run(struct receive_path *restrict path, uint32_t most, uint32_t offset, uint32_t *run, uint64_t *bytes) {
  uint32_t mask = path->queue_mask, place = (path->next_used + offset) & mask;
  uint32_t oldest = path->oldest, next = path->next;
  uint32_t entry_mask = path->entry_mask, entry_place = (path->front + offset) & entry_mask;
  most = least(most, (next >= oldest ? next : path->ring_size) - oldest);
  check(oldest + most <= path->ring_size);
  most = least(most, mask + 1 - place);
  most = least(most, entry_mask + 1 - entry_place);
  *run = most;

  const uint8_t *done = path->ring + DESCRIPTOR * oldest + 8;
  uint8_t *elements = path->used + 4 + 8 * place, *outstanding = path->outstanding;
  const struct entry *all = path->entries, *entries = all + entry_place;
  uint32_t ahead = entry_place + PREFETCH_DISTANCE;
  uint32_t most_bytes = path->need - NET_HEADER;
  uint64_t verdict = RX_DD | RX_EOP | path->damage, checksum_fields = path->checksum_fields, checksum_right = path->checksum_right;
  uint64_t checked_word = path->checked_word, sum = 0;
  size_t n = 0;
  for (; n < most; n++) {
    uint64_t word = sl_load64_acquire(done + DESCRIPTOR * n);
    uint32_t length = (uint16_t)(word >> 32);
    if (unlikely((word & verdict) != (RX_DD | RX_EOP) || length > most_bytes)) break;
    sl_prefetch_write(all[(ahead + (uint32_t)n) & entry_mask].base);
    uint8_t *header = entries[n].base;
    sl_store64(header, (word & checksum_fields) == checksum_right ? checked_word : 0);
    sl_store32(header + 8, 1u << 16);
    uint16_t id = entries[n].id;
    sl_store64(elements + 8 * n, id | (uint64_t)(length + NET_HEADER) << 32);
    outstanding[id & mask] = 0;
    sum += length;
  }
  uint32_t count = (uint32_t)n;
  path->oldest = oldest + count == path->ring_size ? 0 : oldest + count;
  *bytes += sum;
  return count;
}

static __attribute__((noinline)) int settle(struct receive_path *restrict path) {
  if (unlikely(!is_plain(path) || path->is_logging || path->is_discarding)) {
    stop(path, NOT_PLAIN);
    return 0;
  }
  uint32_t most = least(path->slot_tail - path->slot_front, BATCH), count = 0;
  uint64_t bytes = 0;
  while (count < most) {
    uint32_t run, done = settle_run(path, most - count, count, &run, &bytes);
    count += done;
    if (done < run || run == 0) {
      // Something that is not one whole frame, or nothing yet.
      if (unlikely(sl_load64_acquire(path->ring + DESCRIPTOR * path->oldest + 8) & RX_DD)) stop(path, ODD_FRAME);
      break;
    }
  }
  if (count == 0) return 0;

  path->front += count;
  path->slot_front += count;
  path->settled_frames += count;
  uint64_t *cells = path->cells;
  add(cells, RECEIVE_LENT_FRAMES, count);
  add(cells, RECEIVE_LENT_BYTES, bytes);

  uint16_t old = path->next_used, new = (uint16_t)(old + count);
  path->next_used = new;
  sl_store16_release(path->used + 2, new);
  sl_fence();
  if (crosses(sl_load16(path->available + 4 + 2 * (path->queue_mask + 1)), old, new)) {
    path->wants_signal = true;
    add(cells, RECEIVE_SIGNALS, 1);
  } else {
    add(cells, RECEIVE_SUPPRESSED_SIGNALS, 1);
  }
  return (int)count;
}

int receive_turn_in_c(struct receive_path *restrict path) {
  if (unlikely(path->stop_reason != RUNNING)) return 0;
  lend(path);
  int returned = settle(path);
  sl_store64(path->cells + RECEIVE_POSTED_BUFFERS, path->slot_tail - path->slot_front);
  return returned;
}

// The beginning and the end.

static uint32_t power_of_two(uint32_t n) {
  uint32_t power = 1;
  while (power < n) power *= 2;
  return power;
}

static void *zeroed(size_t count, size_t size) {
  void *memory = calloc(count, size);
  if (memory == NULL) abort();
  return memory;
}

struct receive_path *receive_path_make(const struct receive_world *world) {
  struct receive_path *path = zeroed(1, sizeof *path);
  path->mode = AUTO;
  path->descriptors = world->descriptors;
  path->available = world->available;
  path->used = world->used;
  path->outstanding = zeroed(world->queue_size, 1);
  path->queue_mask = world->queue_size - 1;
  path->regions = world->regions;
  path->region_count = world->region_count;
  path->window_base = world->window_base;
  path->need = world->largest_frame + NET_HEADER;
  // VIRTIO_NET_HDR_F_DATA_VALID
  path->checked_word = 2;
  uint32_t places = power_of_two(world->queue_size);
  path->entries = zeroed(places, sizeof *path->entries);
  // Something to look ahead to in every place.
  for (uint32_t i = 0; i < places; i++) path->entries[i].base = (uint8_t *)path->entries;
  path->entry_mask = places - 1;
  path->ring = world->ring;
  path->ring_size = world->ring_size;
  path->damage = RX_RXE;
  path->checksum_fields = RX_L4I | RX_L4E | RX_IPE;
  path->checksum_right = RX_L4I;
  path->tail_register = world->tail;
  path->cells = zeroed(RECEIVE_CELLS, sizeof *path->cells);
  // The driver need not kick: avail_event lies behind us.
  sl_store16(path->used + 4 + 8 * world->queue_size, 0xFFFF);
  sl_store16(path->used, 0);
  return path;
}

void receive_path_free(struct receive_path *path) {
  free(path->outstanding);
  free(path->entries);
  free(path->cells);
  free(path);
}

uint64_t receive_path_count(const struct receive_path *path, enum receive_cell cell) { return sl_load64(path->cells + cell); }
int receive_path_stop_reason(const struct receive_path *path) { return path->stop_reason; }
