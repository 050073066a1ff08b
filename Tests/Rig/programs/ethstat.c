// ethstat INTERFACE: in a guest, the driver's own counters (what `ethtool -S` prints), one `name value` a line.
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

static int s;
static struct ifreq request;

static int ask(void *data) { return request.ifr_data = data, ioctl(s, SIOCETHTOOL, &request); }

int main(int count, char **words) {
  if (count != 2) return fprintf(stderr, "usage: ethstat INTERFACE\n"), 64;
  s = socket(AF_INET, SOCK_DGRAM, 0);
  strncpy(request.ifr_name, words[1], IFNAMSIZ - 1);
  struct ethtool_drvinfo driver = {.cmd = ETHTOOL_GDRVINFO};
  if (ask(&driver)) return perror(words[1]), 1;
  struct ethtool_gstrings *names = calloc(1, sizeof *names + driver.n_stats * (size_t)ETH_GSTRING_LEN);
  struct ethtool_stats *values = calloc(1, sizeof *values + driver.n_stats * sizeof(uint64_t));
  if (!names || !values) return perror("ethstat"), 2;
  names->cmd = ETHTOOL_GSTRINGS, names->string_set = ETH_SS_STATS, names->len = driver.n_stats;
  values->cmd = ETHTOOL_GSTATS, values->n_stats = driver.n_stats;
  if (ask(names) || ask(values)) return perror(words[1]), 1;
  for (uint32_t k = 0; k < driver.n_stats; k++)
    printf("%.*s %llu\n", ETH_GSTRING_LEN, (char *)names->data + k * ETH_GSTRING_LEN, (unsigned long long)values->data[k]);
  return 0;
}
