// Counts patterned frames as they come: which are whole, which came twice, out of order, or not at all.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include "pattern.h"

struct tally {
  uint32_t first, frames, laps;  // indices first ..< first + frames, each expected `laps` times
  uint8_t mac[6];                // whose frames; another VM's are astray
  uint16_t *seen;                // by index - first: how many laps' copies came
  uint8_t (*expected)[largest_frame];  // by index - first: frames as sent, each made when it is first needed; null for very many
  uint64_t next[flows];          // by flow: behind the place of its last frame in the sequence of all laps
  uint64_t end;                  // behind the furthest place seen
  uint64_t good, bytes, bad, duplicate, reordered, astray, other;
};

static inline void tally_begin(struct tally *t) {
  // A lap must be much longer than the way from one frame of a flow to its next, or `tally_place` mistakes it.
  if (t->laps > 1 && t->frames < 8 * flows) fprintf(stderr, "too few frames a lap\n"), exit(64);
  t->seen = calloc(t->frames, sizeof *t->seen);
  if (t->frames <= 4096) t->expected = calloc(t->frames, sizeof *t->expected);
  if (!t->seen || (t->frames <= 4096 && !t->expected)) perror("tally"), exit(2);
}

// Whether these bytes are the frame that they claim to be, as it was sent. Says of the first that is not where it differs.
static inline int tally_is_whole(struct tally *t, uint32_t i, const uint8_t *bytes, size_t length) {
  uint8_t other[largest_frame], *expected = other;
  if (t->expected && i - t->first < t->frames && !memcmp(bytes, t->mac, 6)) expected = t->expected[i - t->first];
  // Of one that is not for us, or not for now, only the moment needs it.
  if (expected == other || !expected[0]) make_frame(expected, i, bytes);
  size_t right = frame_length(i), at = 0;
  if (right == length && !memcmp(bytes, expected, length)) return 1;
  while (at < length && at < right && bytes[at] == expected[at]) at++;
  if (!t->bad) fprintf(stderr, "first bad frame: says index %u, %zu bytes of %zu, differs from byte %zu\n", i, length, right, at);
  return 0;
}

// Where the frame with `offset` from the first stands in the sequence of all laps: it is of the lap that puts it at most a
// quarter lap behind its flow's last frame. So up to three quarters of a lap may be lost in a row.
static inline uint64_t tally_place(const struct tally *t, uint64_t offset, uint64_t next) {
  uint64_t lap = t->frames, place = next / lap * lap + offset;
  if (t->laps == 1) return offset;
  if (place >= lap && place >= next + lap - lap / 4) place -= lap;
  else if (place + lap / 4 < next) place += lap;
  return place;
}

static inline void tally_frame(struct tally *t, const uint8_t *bytes, size_t length) {
  if (!is_patterned(bytes, length)) { t->other++; return; }
  uint32_t i = get32(bytes + index_at), offset = i - t->first;
  if (!tally_is_whole(t, i, bytes, length)) { t->bad++; return; }
  uint64_t *next = &t->next[i % flows], place = offset < t->frames ? tally_place(t, offset, *next) : 0;
  if (memcmp(bytes, t->mac, 6) || offset >= t->frames || place / t->frames >= t->laps) { t->astray++; return; }
  if (t->seen[offset] > place / t->frames) { t->duplicate++; return; }
  t->seen[offset] = (uint16_t)(place / t->frames + 1);
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
