// Counts patterned frames as they come: which are whole, which came twice, out of order, or not at all.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include "pattern.h"

struct tally {
  uint32_t first, frames, laps;  // indices first ..< first + frames, each expected `laps` times
  uint8_t mac[6];                // whose frames; another VM's are astray
  uint16_t *seen;                // by index - first
  uint64_t next[flows];          // by flow: the place of its last frame in the whole sequence, plus one
  uint64_t end;                  // behind the furthest place seen
  uint64_t good, bytes, bad, duplicate, reordered, astray, other;
};

static inline void tally_begin(struct tally *t) {
  t->seen = calloc(t->frames, sizeof *t->seen);
  if (!t->seen) perror("tally"), exit(2);
}

static inline void tally_frame(struct tally *t, const uint8_t *bytes, size_t length) {
  if (!is_patterned(bytes, length)) { t->other++; return; }
  uint8_t expected[largest_frame];
  uint32_t i = get32(bytes + index_at);
  // The frame as it was sent, whoever it was for, or it is bad.
  size_t right = make_frame(expected, i, bytes);
  if (right != length || memcmp(bytes, expected, length)) {
    size_t at = 0;
    while (at < length && at < right && bytes[at] == expected[at]) at++;
    if (!t->bad++) fprintf(stderr, "first bad frame: says index %u, %zu bytes of %zu, differs from byte %zu\n", i, length, right, at);
    return;
  }
  if (memcmp(bytes, t->mac, 6) || i - t->first >= t->frames) { t->astray++; return; }
  uint16_t *seen = &t->seen[i - t->first];
  if (*seen == t->laps) { t->duplicate++; return; }
  uint64_t place = (uint64_t)(*seen)++ * t->frames + (i - t->first), *next = &t->next[i % flows];
  if (place < *next) t->reordered++;
  else *next = place + 1;
  if (place >= t->end) t->end = place + 1;
  t->good++, t->bytes += length;
}

static inline uint64_t tally_missing(const struct tally *t) { return (uint64_t)t->frames * t->laps - t->good; }

// The line that the tests read: a word, then names and values.
static inline void tally_print(const struct tally *t, const char *word, uint64_t socket_drops) {
  printf("%s good %lu bytes %lu bad %lu duplicate %lu reordered %lu missing %lu holes %lu astray %lu other %lu socket-drops %lu\n",
    word, t->good, t->bytes, t->bad, t->duplicate, t->reordered, tally_missing(t), t->end - t->good, t->astray, t->other, socket_drops);
  fflush(stdout);
}

static inline int parse_mac(const char *text, uint8_t mac[6]) {
  unsigned b[6];
  char end;
  if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", b, b + 1, b + 2, b + 3, b + 4, b + 5, &end) != 6) return 0;
  for (int k = 0; k < 6; k++) mac[k] = (uint8_t)b[k];
  return 1;
}
