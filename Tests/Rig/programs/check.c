// check FIRST FRAMES LAPS [MAC] < CAPTURE.pcap
//
// On the host: counts the patterned frames of a capture, which may be a pipe, as `sink` does in a guest, and prints the
// same line, with the word CHECK, at the capture's end.
#include "tally.h"

int main(int count, char **words) {
  if (count < 4) return fprintf(stderr, "usage: check FIRST FRAMES LAPS [MAC] < CAPTURE.pcap\n"), 64;
  struct tally tally = {
    .first = (uint32_t)atol(words[1]), .frames = (uint32_t)atol(words[2]), .laps = (uint32_t)atol(words[3]),
    .mac = {0x52, 0x54, 0, 0x12, 0x34, 0x56}};
  if (count > 4 && !parse_mac(words[4], tally.mac)) return fprintf(stderr, "check: not a MAC\n"), 64;
  tally_begin(&tally);
  uint32_t header[6], record[4];
  // Microseconds or nanoseconds, in this machine's byte order: what is written beside us.
  if (fread(header, sizeof header, 1, stdin) != 1 || (header[0] != 0xa1b2c3d4 && header[0] != 0xa1b23c4d))
    return fprintf(stderr, "check: not a capture\n"), 65;
  static uint8_t bytes[65536];
  while (fread(record, sizeof record, 1, stdin) == 1) {
    if (record[2] > sizeof bytes) return fprintf(stderr, "check: a record of %u bytes\n", record[2]), 65;
    if (fread(bytes, record[2], 1, stdin) != 1) break;
    tally_frame(&tally, bytes, record[2]);
  }
  tally_print(&tally, "CHECK", 0);
  return tally.bad || tally.duplicate || tally.reordered || tally_missing(&tally) ? 1 : 0;
}
