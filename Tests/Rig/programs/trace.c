// trace FRAMES [FIRST [MAC...]] > OUT.pcap
//
// Writes patterned frames FIRST ..< FIRST + FRAMES as a capture, for the MACs in turn (52:54:00:12:34:56 by default).
#include "tally.h"

int main(int count, char **words) {
  if (count < 2) return fprintf(stderr, "usage: trace FRAMES [FIRST [MAC...]] > OUT.pcap\n"), 64;
  uint32_t frames = (uint32_t)atol(words[1]), first = count > 2 ? (uint32_t)atol(words[2]) : 0;
  uint32_t header[6] = {0xa1b2c3d4, 4 << 16 | 2, 0, 0, 65535, 1};  // microseconds, version 2.4, Ethernet
  fwrite(header, sizeof header, 1, stdout);
  for (uint32_t i = first; i - first < frames; i++) {
    uint8_t mac[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56}, frame[largest_frame];
    if (count > 3 && !parse_mac(words[3 + i % (uint32_t)(count - 3)], mac)) return fprintf(stderr, "trace: not a MAC\n"), 64;
    uint32_t length = (uint32_t)make_frame(frame, i, mac), record[4] = {(i - first) / 1000000, (i - first) % 1000000, length, length};
    fwrite(record, sizeof record, 1, stdout), fwrite(frame, length, 1, stdout);
  }
  return fflush(stdout) || ferror(stdout) ? perror("trace"), 74 : 0;
}
