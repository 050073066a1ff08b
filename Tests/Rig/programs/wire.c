// wire INTERFACE < FRAMES
//
// In a guest: sends what comes on its standard input, frames with their length before them (four bytes, big endian), on an
// interface.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int count, char **words) {
  if (count != 2) return fprintf(stderr, "usage: wire INTERFACE < FRAMES\n"), 64;
  int s = socket(AF_PACKET, SOCK_RAW, 0);
  struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(words[1]), .sll_halen = ETH_ALEN};
  if (s < 0 || !to.sll_ifindex) return perror(words[1]), 66;
  uint8_t frame[65536];
  for (uint32_t length; fread(&length, 4, 1, stdin) == 1;) {
    length = ntohl(length);
    if (length > sizeof frame || fread(frame, length, 1, stdin) != 1) return fprintf(stderr, "wire: half a frame\n"), 65;
    // A device that has no room has it again soon.
    while (sendto(s, frame, length, 0, (struct sockaddr *)&to, sizeof to) < 0)
      if (errno != ENOBUFS && errno != EAGAIN) return perror("wire"), 74;
  }
  return 0;
}
