// One turn of a receive path in C: a split virtqueue joined to a receive ring of an Intel card. The yardstick of
// ReceivePath.turn: the same loads, stores and checks of a lent frame, in the same order.
#ifndef CRECEIVETURN_H
#define CRECEIVETURN_H

#include <stdint.h>

// A region of the guest's memory.
struct receive_region {
  uint64_t start, byte_count;
  uint8_t *host;
};

// What a path is joined to. Everything it points at outlives the path.
struct receive_world {
  // The guest's ring: a power of two of entries, with EVENT_IDX.
  uint8_t *descriptors, *available, *used;
  uint32_t queue_size;
  const struct receive_region *regions;
  uint32_t region_count;
  // Where the guest's address 0 lies on the bus.
  uint64_t window_base;
  // The card's ring of advanced descriptors, and its tail register.
  uint8_t *ring;
  uint32_t ring_size;
  void *tail;
  uint32_t largest_frame;
};

// The cells that a turn of a lent frame writes.
enum receive_cell {
  RECEIVE_LENT_FRAMES,
  RECEIVE_LENT_BYTES,
  RECEIVE_DOORBELLS,
  RECEIVE_SIGNALS,
  RECEIVE_SUPPRESSED_SIGNALS,
  RECEIVE_POSTED_BUFFERS,
  RECEIVE_CELLS
};

struct receive_path;

struct receive_path *receive_path_make(const struct receive_world *world);
void receive_path_free(struct receive_path *path);

// Walks one batch out and one batch back. Answers how many buffers went back to the guest.
int receive_turn_in_c(struct receive_path *path);

uint64_t receive_path_count(const struct receive_path *path, enum receive_cell cell);
// Why the path has stopped; 0 while it runs.
int receive_path_stop_reason(const struct receive_path *path);

#endif
