#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <unistd.h>

int sl_unix_socket(void) { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }
int sl_unix_pair(int ends[2]) { return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends); }

size_t sl_unix_longest_path(void) { return sizeof((struct sockaddr_un *)0)->sun_path - 1; }

// The address of a path, or 0 if the path does not fit.
static socklen_t address_of(const char *path, struct sockaddr_un *address) {
  size_t length = strlen(path);
  if (length == 0 || length > sl_unix_longest_path()) {
    errno = length == 0 ? EINVAL : ENAMETOOLONG;
    return 0;
  }
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  memcpy(address->sun_path, path, length);
  return (socklen_t)sizeof *address;
}

int sl_unix_bind(int number, const char *path) {
  struct sockaddr_un address;
  socklen_t length = address_of(path, &address);
  return length == 0 ? -1 : bind(number, (struct sockaddr *)&address, length);
}

int sl_unix_connect(int number, const char *path) {
  struct sockaddr_un address;
  socklen_t length = address_of(path, &address);
  return length == 0 ? -1 : connect(number, (struct sockaddr *)&address, length);
}

int sl_unix_listen(int number, int backlog) { return listen(number, backlog); }
int sl_unix_accept(int number) { return accept4(number, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK); }

int sl_unix_peer(int number, int32_t *process, uint32_t *user, uint32_t *group) {
  struct ucred peer;
  socklen_t length = sizeof peer;
  if (getsockopt(number, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return -1;
  *process = peer.pid;
  *user = peer.uid;
  *group = peer.gid;
  return 0;
}

int sl_is_unix_stream(int number) {
  int domain = -1, type = -1;
  socklen_t length = sizeof domain;
  if (getsockopt(number, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0) return 0;
  length = sizeof type;
  if (getsockopt(number, SOL_SOCKET, SO_TYPE, &type, &length) != 0) return 0;
  return domain == AF_UNIX && type == SOCK_STREAM;
}

// Bytes of a Unix socket's name; -1 if it has no address.
static int name_length(int (*get)(int, struct sockaddr *, socklen_t *), int number) {
  struct sockaddr_un address;
  socklen_t length = sizeof address;
  if (get(number, (struct sockaddr *)&address, &length) != 0 || address.sun_family != AF_UNIX) return -1;
  return (int)length - (int)offsetof(struct sockaddr_un, sun_path);
}
static int own_name(int number, struct sockaddr *address, socklen_t *length) { return getsockname(number, address, length); }
static int peer_name(int number, struct sockaddr *address, socklen_t *length) { return getpeername(number, address, length); }

int sl_is_unnamed_pair(int number) { return name_length(own_name, number) == 0 && name_length(peer_name, number) == 0; }

int sl_has_input_or_end(int number) {
  struct pollfd request = {number, POLLIN | POLLRDHUP, 0};
  return poll(&request, 1, 0) > 0;
}

int sl_refuse_descriptors(int number) {
  // Newer than some headers; no architecture of ours has another number for it.
  enum { PASS_RIGHTS = 83 };
  int passes = 0;
  return setsockopt(number, SOL_SOCKET, PASS_RIGHTS, &passes, sizeof passes);
}

void sl_shut_down(int number) { (void)shutdown(number, SHUT_RDWR); }

ptrdiff_t sl_unix_receive(int number, void *bytes, size_t count, int *descriptors, int *descriptor_count, int *foreign) {
  // Room for every descriptor, and for credentials that nobody asked for.
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(SL_MOST_DESCRIPTORS * sizeof(int)) + 256];
  struct iovec piece = {bytes, count};
  struct msghdr message = {0};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  *descriptor_count = 0;
  *foreign = 0;
  ssize_t received;
  do received = recvmsg(number, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (received < 0 && errno == EINTR);
  if (received < 0) return -1;
  if (message.msg_flags & MSG_CTRUNC) *foreign = 1;
  for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part != NULL; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
      *foreign = 1;
      continue;
    }
    size_t found = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t n = 0; n < found && *descriptor_count < SL_MOST_DESCRIPTORS; n++) {
      memcpy(&descriptors[*descriptor_count], CMSG_DATA(part) + n * sizeof(int), sizeof(int));
      *descriptor_count += 1;
    }
  }
  return received;
}

ptrdiff_t sl_unix_send(int number, const void *bytes, size_t count, const int *descriptors, int descriptor_count) {
  _Alignas(struct cmsghdr) char control[CMSG_SPACE(SL_MOST_DESCRIPTORS * sizeof(int))];
  struct iovec piece = {(void *)bytes, count};
  struct msghdr message = {0};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (descriptor_count < 0 || descriptor_count > SL_MOST_DESCRIPTORS) {
    errno = EINVAL;
    return -1;
  }
  if (descriptor_count > 0) {
    size_t length = (size_t)descriptor_count * sizeof(int);
    memset(control, 0, sizeof control);
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(length);
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(length);
    memcpy(CMSG_DATA(part), descriptors, length);
  }
  ssize_t sent;
  do sent = sendmsg(number, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent;
}

int sl_poller(void) { return epoll_create1(EPOLL_CLOEXEC); }

static int control(int poller, int operation, int descriptor, int interest, uint64_t token) {
  struct epoll_event event = {0};
  if (interest & SL_READABLE) event.events |= EPOLLIN;
  if (interest & SL_WRITABLE) event.events |= EPOLLOUT;
  if (interest & SL_EDGES) event.events |= EPOLLET;
  event.data.u64 = token;
  return epoll_ctl(poller, operation, descriptor, &event);
}

int sl_poller_add(int poller, int descriptor, int interest, uint64_t token) {
  return control(poller, EPOLL_CTL_ADD, descriptor, interest, token);
}
int sl_poller_modify(int poller, int descriptor, int interest, uint64_t token) {
  return control(poller, EPOLL_CTL_MOD, descriptor, interest, token);
}
int sl_poller_remove(int poller, int descriptor) { return control(poller, EPOLL_CTL_DEL, descriptor, 0, 0); }

int sl_poller_wait(int poller, uint64_t *tokens, int *states, int room, int milliseconds) {
  struct epoll_event events[64];
  int count = epoll_wait(poller, events, room < 64 ? room : 64, milliseconds);
  if (count < 0) return errno == EINTR ? 0 : -1;
  for (int n = 0; n < count; n++) {
    tokens[n] = events[n].data.u64;
    states[n] = (events[n].events & EPOLLIN ? SL_READABLE : 0) | (events[n].events & EPOLLOUT ? SL_WRITABLE : 0) |
                (events[n].events & (EPOLLHUP | EPOLLERR) ? SL_CLOSED : 0);
  }
  return count;
}

int sl_kind(int descriptor) {
  int flags = fcntl(descriptor, F_GETFL);
  if (flags < 0) return -1;
  if (flags & O_PATH) return SL_KIND_PATH;
  if (fcntl(descriptor, F_GET_SEALS) >= 0) return SL_KIND_MEMORY;
  char path[sizeof "/proc/self/fd/" + 12], link[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(path, link, sizeof link - 1);
  if (length < 0) return -1;
  link[length] = 0;
  // A file's name begins with a slash, whatever its owner calls it.
  if (strcmp(link, "anon_inode:[eventfd]") == 0) return SL_KIND_EVENT;
  if (strncmp(link, "anon_inode:", 11) == 0) return SL_KIND_ANONYMOUS;
  if (strncmp(link, "pipe:[", 6) == 0) return SL_KIND_PIPE;
  if (strncmp(link, "socket:[", 8) == 0) return SL_KIND_SOCKET;
  return SL_KIND_OTHER;
}

int64_t sl_filesystem(int descriptor) {
  struct statfs status;
  return fstatfs(descriptor, &status) == 0 ? (int64_t)(uint32_t)status.f_type : -1;
}
// <linux/magic.h>
int64_t sl_filesystem_huge_pages(void) { return 0x958458f6; }

int sl_seals(int descriptor) { return fcntl(descriptor, F_GET_SEALS); }
int sl_add_seals(int descriptor, int seals) { return fcntl(descriptor, F_ADD_SEALS, seals); }
int sl_seal_shrink(void) { return F_SEAL_SHRINK; }
int sl_status_flags(int descriptor) { return fcntl(descriptor, F_GETFL); }
int sl_flag_path(void) { return O_PATH; }

int sl_set_nonblocking(int descriptor) {
  int flags = fcntl(descriptor, F_GETFL);
  if (flags < 0) return -1;
  return flags & O_NONBLOCK ? 0 : fcntl(descriptor, F_SETFL, flags | O_NONBLOCK);
}
