// TAP devices and links. The headers that this takes stay out of the module: they define what Glibc's own does.
#define _GNU_SOURCE
#include "Tap.h"

#include <errno.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

int sl_link_name_size(void) { return IFNAMSIZ; }

int sl_tap_attach(int descriptor, char *name) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  memcpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (ioctl(descriptor, TUNSETIFF, &request) != 0) return errno;
  memcpy(name, request.ifr_name, IFNAMSIZ);
  return 0;
}

// Changes a link by its name: a request with `ifr` filled in. Returns 0 or an errno.
static int link_request(const char *name, unsigned long code, struct ifreq *request) {
  int result = 0;
  int number = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (number < 0) return errno;
  strncpy(request->ifr_name, name, IFNAMSIZ - 1);
  request->ifr_name[IFNAMSIZ - 1] = 0;
  if (ioctl(number, code, request) != 0) result = errno;
  close(number);
  return result;
}
int sl_link_set_mtu(const char *name, int bytes) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  request.ifr_mtu = bytes;
  return link_request(name, SIOCSIFMTU, &request);
}
int sl_link_set_up(const char *name) {
  struct ifreq request;
  memset(&request, 0, sizeof request);
  int result = link_request(name, SIOCGIFFLAGS, &request);
  if (result != 0) return result;
  request.ifr_flags |= IFF_UP;
  return link_request(name, SIOCSIFFLAGS, &request);
}
