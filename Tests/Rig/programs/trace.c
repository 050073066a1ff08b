// trace FRAMES [FIRST [MAC...]] > OUT.pcap
//
// Writes patterned frames FIRST ..< FIRST + FRAMES as a capture: each for all of the MACs, one after the other
// (52:54:00:12:34:56 by default).
#include "tally.h"

static uint64_t count;

static void write_frame(uint32_t i, const uint8_t mac[6]) {
  uint8_t frame[largest_frame];
  uint32_t length = (uint32_t)make_frame(frame, i, mac);
  uint32_t record[4] = {(uint32_t)(count / 1000000), (uint32_t)(count % 1000000), length, length};
  count++;
  fwrite(record, sizeof record, 1, stdout), fwrite(frame, length, 1, stdout);
}

int main(int words_count, char **words) {
  if (words_count < 2) return fprintf(stderr, "usage: trace FRAMES [FIRST [MAC...]] > OUT.pcap\n"), 64;
  uint32_t frames = (uint32_t)atol(words[1]), first = words_count > 2 ? (uint32_t)atol(words[2]) : 0;
  uint8_t macs[16][6] = {{0x52, 0x54, 0, 0x12, 0x34, 0x56}};
  int vms = words_count > 3 ? words_count - 3 : 1;
  for (int k = 3; k < words_count; k++)
    if (vms > 16 || !parse_mac(words[k], macs[k - 3])) return fprintf(stderr, "trace: not a MAC, or more than 16\n"), 64;
  uint32_t header[6] = {0xa1b2c3d4, 4 << 16 | 2, 0, 0, 65535, 1};  // microseconds, version 2.4, Ethernet
  fwrite(header, sizeof header, 1, stdout);
  for (uint32_t i = first; i - first < frames; i++)
    for (int k = 0; k < vms; k++) write_frame(i, macs[k]);
  return fflush(stdout) || ferror(stdout) ? perror("trace"), 74 : 0;
}
