// rings INTERFACE RX TX        ask the driver for rings of so many entries, as `ethtool -G` does
// rings INTERFACE channels N   ask for so many queue pairs, as `ethtool -L` does
//
// In a guest. Prints what the driver said, DONE or the error's name; the exit status is 0 either way.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int ask(const char *interface, void *command) {
  int s = socket(AF_INET, SOCK_DGRAM, 0);
  struct ifreq request = {0};
  strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
  request.ifr_data = command;
  return ioctl(s, SIOCETHTOOL, &request);
}

int main(int count, char **words) {
  if (count != 4) return fprintf(stderr, "usage: rings INTERFACE RX TX | rings INTERFACE channels N\n"), 64;
  int result;
  if (!strcmp(words[2], "channels")) {
    struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
    if (ask(words[1], &channels)) return perror("ETHTOOL_GCHANNELS"), 2;
    channels.cmd = ETHTOOL_SCHANNELS, channels.combined_count = (unsigned)atoi(words[3]);
    result = ask(words[1], &channels);
  } else {
    struct ethtool_ringparam rings = {.cmd = ETHTOOL_GRINGPARAM};
    if (ask(words[1], &rings)) return perror("ETHTOOL_GRINGPARAM"), 2;
    rings.cmd = ETHTOOL_SRINGPARAM, rings.rx_pending = (unsigned)atoi(words[2]), rings.tx_pending = (unsigned)atoi(words[3]);
    result = ask(words[1], &rings);
  }
  printf("%s\n", result ? strerrorname_np(errno) : "DONE");
  return 0;
}
