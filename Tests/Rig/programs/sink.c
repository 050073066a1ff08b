// sink INTERFACE FIRST FRAMES LAPS [SECONDS]
//
// In a guest: counts the patterned frames FIRST ..< FIRST + FRAMES, each expected LAPS times, that arrive for the
// interface's own address. Says SINK-READY when it listens; ends when all came, on SIGTERM, or after SECONDS, with one
// SINK line. SIGUSR1 asks for a SINK-SO-FAR line.
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "tally.h"

static volatile sig_atomic_t asked, ended;
static void on_signal(int number) { *(number == SIGUSR1 ? &asked : &ended) = 1; }

static void fail(const char *what) { perror(what), exit(2); }

// A raw socket on the interface, with room for what a slow guest has not looked at yet.
static int listen_on(const char *interface, uint8_t mac[6]) {
  int s = socket(AF_PACKET, SOCK_RAW, 0), room = 32 << 20;
  if (s < 0) fail("socket");
  struct ifreq request = {0};
  strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
  if (ioctl(s, SIOCGIFHWADDR, &request)) fail(interface);
  memcpy(mac, request.ifr_hwaddr.sa_data, 6);
  if (setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room)) fail("SO_RCVBUFFORCE");
  struct packet_mreq all = {.mr_ifindex = (int)if_nametoindex(interface), .mr_type = PACKET_MR_PROMISC};
  if (setsockopt(s, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all)) fail("promiscuous");
  struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = all.mr_ifindex};
  if (bind(s, (struct sockaddr *)&address, sizeof address)) fail("bind");
  return s;
}

static uint64_t socket_drops(int s) {
  static uint64_t sum;
  struct tpacket_stats statistics = {0};
  socklen_t size = sizeof statistics;
  getsockopt(s, SOL_PACKET, PACKET_STATISTICS, &statistics, &size);  // resets them
  return sum += statistics.tp_drops;
}

int main(int count, char **words) {
  if (count < 5) return fprintf(stderr, "usage: sink INTERFACE FIRST FRAMES LAPS [SECONDS]\n"), 64;
  struct tally tally = {.first = (uint32_t)atol(words[2]), .frames = (uint32_t)atol(words[3]), .laps = (uint32_t)atol(words[4])};
  time_t end = time(NULL) + (count > 5 ? atol(words[5]) : 1 << 30);
  // Before the threads that take frames from the device: then no more are taken than are looked at, and however long the
  // traffic lasts, none is lost between the driver and us.
  if (sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1})) fail("SCHED_FIFO");
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGTERM, &action, NULL), sigaction(SIGUSR1, &action, NULL);
  int s = listen_on(words[1], tally.mac);
  tally_begin(&tally);
  printf("SINK-READY %s\n", words[1]), fflush(stdout);
  while (!ended && tally_missing(&tally) && time(NULL) < end) {
    if (asked) asked = 0, tally_print(&tally, "SINK-SO-FAR", socket_drops(s));
    struct pollfd readable = {s, POLLIN, 0};
    if (poll(&readable, 1, 200) <= 0) continue;
    uint8_t bytes[65536];
    struct sockaddr_ll from;
    socklen_t size = sizeof from;
    ssize_t length = recvfrom(s, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&from, &size);
    // An interface that goes down and up again is an error here once, and not the end.
    if (length < 0 && errno != EAGAIN && errno != EINTR && errno != ENETDOWN) fail("recvfrom");
    if (length > 0 && from.sll_pkttype != PACKET_OUTGOING) tally_frame(&tally, bytes, (size_t)length);
  }
  // What came twice comes late: listen until a while after the last.
  for (struct pollfd readable = {s, POLLIN, 0}; !ended && !tally_missing(&tally) && poll(&readable, 1, 300) > 0;) {
    uint8_t bytes[65536];
    ssize_t length = recv(s, bytes, sizeof bytes, MSG_DONTWAIT);
    if (length > 0) tally_frame(&tally, bytes, (size_t)length);
  }
  tally_print(&tally, "SINK", socket_drops(s));
  return tally.bad || tally.duplicate || tally.reordered || tally_missing(&tally) ? 1 : 0;
}
