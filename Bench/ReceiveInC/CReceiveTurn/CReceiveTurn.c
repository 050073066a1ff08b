// The receive turn as one would write it in C, beside Sources/Datapath/ReceivePath.swift: read them together.
//
// The same in both, of each lent frame: one load of the available entry, the check of the head, the mark that it is
// out, two loads of its descriptor, flags and length, the region of the previous buffer first, the ledger's entry, the
// slot's flag, the card's two words; DD with acquire, length, EOP, damage, both limits of length, the header's line asked
// for 12 frames ahead, twelve bytes of header, the used element, the mark taken back. Of each batch: the available index
// with acquire, one doorbell behind a release fence, the used index with release, the full fence, used_event, six cells,
// and the questions whether the path has stopped, is plain, copies, logs or discards.
//
// In neither: what a frame that is not lent needs. Here it stops the path; there it goes the long way. Both ways out are
// calls that are not inlined.
//
// Only there: which of two ring formats the queue has (this one is split); that a place in the card's ring lies in its
// pages, that there is room for a buffer, and that a head lies in the ring when its descriptor is read and it is marked
// (here the loop's bounds and the check of the head say so).
// Only here: every cursor is in a local for the whole of a loop, and stored once behind it; there, the virtqueue's next
// entry and the card's next and oldest descriptors are not. A count of what is out at the card; there, the two ends say it.
#include <CLinux.h>

#include "CReceiveTurn.h"

#include <stdbool.h>
#include <stdlib.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

enum { BATCH = 64, PREFETCH_DISTANCE = 12, NET_HEADER = 12, DESCRIPTOR = 16 };
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
enum reason { RUNNING, INDEX_RAN_AHEAD, HEAD_OUT_OF_RANGE, HEAD_OUTSTANDING, NOT_PLAIN, ODD_BUFFER, ODD_FRAME };

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
  uint8_t *slots;
  uint32_t slot_mask, slot_front, slot_tail;
  // The card's ring.
  uint8_t *ring;
  uint32_t ring_size, next, oldest, out_count, largest_frame;
  uint64_t damage, checksum_fields, checksum_right;
  void *tail_register;
  // What was counted.
  uint64_t *cells;
  uint64_t settled_frames;
};

static inline void add(uint64_t *cells, enum receive_cell cell, uint64_t amount) {
  sl_store64(cells + cell, sl_load64(cells + cell) + amount);
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

static inline void lend(struct receive_path *restrict path) {
  uint16_t next_available = path->next_available;
  uint32_t mask = path->queue_mask, pending = 0;
  const uint8_t *available = path->available;
  if (likely(path->fault == RUNNING)) {
    pending = (uint16_t)(sl_load16_acquire(available + 2) - next_available);
    if (unlikely(pending > mask + 1)) {
      stop(path, INDEX_RAN_AHEAD);
      pending = 0;
    }
  }
  uint32_t room = path->ring_size - 1 - path->out_count;
  uint32_t count = pending < BATCH ? pending : BATCH;
  if (count > room) count = room;
  if (unlikely(!is_plain(path))) {
    stop(path, NOT_PLAIN);
    return;
  }
  if (count == 0) return;

  const uint8_t *descriptors = path->descriptors;
  uint8_t *outstanding = path->outstanding, *ring = path->ring, *slots = path->slots;
  struct entry *entries = path->entries;
  uint32_t entry_mask = path->entry_mask, slot_mask = path->slot_mask;
  uint32_t tail = path->tail, slot_tail = path->slot_tail, next = path->next, ring_size = path->ring_size;
  uint32_t need = path->need;
  uint64_t to_bus = path->window_base + NET_HEADER;
  const struct receive_region *region = path->regions + path->last_region;
  enum reason odd = RUNNING;
  uint32_t done = 0;
  do {
    uint32_t head = sl_load16(available + 4 + 2 * (next_available & mask));
    if (unlikely(head > mask)) {
      odd = HEAD_OUT_OF_RANGE;
      break;
    }
    if (unlikely(outstanding[head] != 0)) {
      odd = HEAD_OUTSTANDING;
      break;
    }
    const uint8_t *descriptor = descriptors + DESCRIPTOR * head;
    uint64_t word = sl_load64(descriptor + 8), address = sl_load64(descriptor);
    uint32_t length = (uint32_t)word;
    if (unlikely((uint16_t)(word >> 32) != DESC_F_WRITE || length < need)) {
      odd = ODD_BUFFER;
      break;
    }
    uint64_t offset = address - region->start;
    uint8_t *host;
    if (likely(offset < region->byte_count && length <= region->byte_count - offset)) {
      host = region->host + offset;
    } else {
      host = search(path, address, length);
      if (host == NULL) {
        odd = ODD_BUFFER;
        break;
      }
      region = path->regions + path->last_region;
    }
    outstanding[head] = 1;
    next_available++;
    entries[tail & entry_mask] = (struct entry){host, length, (uint16_t)head, LENT, 0};
    tail++;
    slots[slot_tail & slot_mask] = 0;
    slot_tail++;
    uint8_t *posted = ring + DESCRIPTOR * next;
    sl_store64(posted, to_bus + address);
    sl_store64(posted + 8, 0);
    next = next + 1 == ring_size ? 0 : next + 1;
  } while (++done < count);

  path->next_available = next_available;
  path->tail = tail;
  path->slot_tail = slot_tail;
  path->next = next;
  path->out_count += done;
  if (done != 0) {
    sl_mmio_write32(path->tail_register, next);
    add(path->cells, RECEIVE_DOORBELLS, 1);
  }
  if (unlikely(odd != RUNNING)) stop(path, odd);
}

// virtio 1.3, 2.7.7.2.
static inline bool crosses(uint16_t event, uint16_t old, uint16_t new) {
  return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

static inline int settle(struct receive_path *restrict path) {
  if (unlikely(!is_plain(path) || path->is_logging)) {
    stop(path, NOT_PLAIN);
    return 0;
  }
  uint8_t *used = path->used, *outstanding = path->outstanding;
  const uint8_t *ring = path->ring;
  const struct entry *entries = path->entries;
  uint32_t mask = path->queue_mask, entry_mask = path->entry_mask;
  uint32_t front = path->front, oldest = path->oldest, ring_size = path->ring_size;
  uint32_t largest_frame = path->largest_frame, most = path->need - NET_HEADER;
  uint64_t ends = RX_EOP | path->damage, checksum_fields = path->checksum_fields, checksum_right = path->checksum_right;
  uint64_t checked_word = path->checked_word, bytes = 0;
  uint16_t old = path->next_used;
  uint32_t limit = path->out_count < BATCH ? path->out_count : BATCH, count = 0;
  bool is_discarding = path->is_discarding, is_odd = false;

  for (; count < limit; count++) {
    uint64_t word = sl_load64_acquire(ring + DESCRIPTOR * oldest + 8);
    if (!(word & RX_DD)) break;
    uint32_t length = (uint16_t)(word >> 32);
    struct entry entry = entries[front & entry_mask];
    sl_prefetch_write(entries[(front + PREFETCH_DISTANCE) & entry_mask].base);
    if (unlikely((word & ends) != RX_EOP || is_discarding || length > largest_frame || length > most)) {
      is_odd = true;
      break;
    }
    oldest = oldest + 1 == ring_size ? 0 : oldest + 1;
    sl_store64(entry.base, (word & checksum_fields) == checksum_right ? checked_word : 0);
    sl_store32(entry.base + 8, 1u << 16);
    uint8_t *element = used + 4 + 8 * ((old + count) & mask);
    sl_store32(element, entry.id);
    sl_store32(element + 4, length + NET_HEADER);
    outstanding[entry.id & mask] = 0;
    front++;
    bytes += length;
  }
  if (unlikely(is_odd)) stop(path, ODD_FRAME);
  if (count == 0) return 0;

  path->oldest = oldest;
  path->out_count -= count;
  path->front = front;
  path->slot_front += count;
  path->settled_frames += count;
  uint64_t *cells = path->cells;
  add(cells, RECEIVE_LENT_FRAMES, count);
  add(cells, RECEIVE_LENT_BYTES, bytes);

  uint16_t new = (uint16_t)(old + count);
  path->next_used = new;
  sl_store16_release(used + 2, new);
  sl_fence();
  if (crosses(sl_load16(path->available + 4 + 2 * (mask + 1)), old, new)) {
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
  uint32_t places = power_of_two(world->queue_size), slot_places = power_of_two(world->ring_size - 1);
  path->entries = zeroed(places, sizeof *path->entries);
  // Something to look ahead to in every place.
  for (uint32_t i = 0; i < places; i++) path->entries[i].base = (uint8_t *)path->entries;
  path->entry_mask = places - 1;
  path->slots = zeroed(slot_places, 1);
  path->slot_mask = slot_places - 1;
  path->ring = world->ring;
  path->ring_size = world->ring_size;
  path->largest_frame = world->largest_frame;
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
  free(path->slots);
  free(path->cells);
  free(path);
}

uint64_t receive_path_count(const struct receive_path *path, enum receive_cell cell) { return sl_load64(path->cells + cell); }
int receive_path_stop_reason(const struct receive_path *path) { return path->stop_reason; }
