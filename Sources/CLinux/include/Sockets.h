// Unix sockets that pass descriptors, readiness, and what a descriptor is: calls whose structures Swift cannot
// name well. Results are the calls' own, or -1 with errno.
#ifndef CLINUX_SOCKETS_H
#define CLINUX_SOCKETS_H

#include <stddef.h>
#include <stdint.h>

// The most descriptors that the kernel passes with one message.
enum { SL_MOST_DESCRIPTORS = 253 };

// A Unix stream socket, close-on-exec, never blocking; or two that are connected.
int sl_unix_socket(void);
int sl_unix_pair(int ends[2]);
// -1 with ENAMETOOLONG if the path does not fit.
int sl_unix_bind(int socket, const char *path);
int sl_unix_connect(int socket, const char *path);
// The longest path, in bytes.
size_t sl_unix_longest_path(void);
int sl_unix_listen(int socket, int backlog);
int sl_unix_accept(int socket);
// SO_PEERCRED: who had the other end when it was connected.
int sl_unix_peer(int socket, int32_t *process, uint32_t *user, uint32_t *group);
// SO_DOMAIN and SO_TYPE: 1 if it is a Unix stream socket.
int sl_is_unix_stream(int socket);

// recvmsg(2), never blocking. All descriptors that came are put into `descriptors` (room for SL_MOST_DESCRIPTORS),
// close-on-exec, and are the caller's. *foreign is 1 if something else than descriptors came along, or some were lost.
ptrdiff_t sl_unix_receive(int socket, void *bytes, size_t count, int *descriptors, int *descriptor_count, int *foreign);
// sendmsg(2), never blocking, no SIGPIPE.
ptrdiff_t sl_unix_send(int socket, const void *bytes, size_t count, const int *descriptors, int descriptor_count);

// epoll(7), level-triggered.
enum { SL_READABLE = 1, SL_WRITABLE = 2, SL_CLOSED = 4, SL_EDGES = 8 };
int sl_poller(void);
int sl_poller_add(int poller, int descriptor, int interest, uint64_t token);
int sl_poller_modify(int poller, int descriptor, int interest, uint64_t token);
int sl_poller_remove(int poller, int descriptor);
// At most `room` of what is ready, at most 64. A negative timeout waits without end.
int sl_poller_wait(int poller, uint64_t *tokens, int *states, int room, int milliseconds);

// The type of the file system that a descriptor's file lies on, as in statfs(2).
int64_t sl_filesystem(int descriptor);
int64_t sl_filesystem_shared_memory(void);
int64_t sl_filesystem_huge_pages(void);
// F_GET_SEALS, or -1 where there can be none.
int sl_seals(int descriptor);
int sl_add_seals(int descriptor, int seals);
int sl_seal_shrink(void);
// F_GETFL; O_PATH is not among Glibc's names for Swift.
int sl_status_flags(int descriptor);
int sl_flag_path(void);
// Makes reads and writes through every descriptor of the same open file never block.
int sl_set_nonblocking(int descriptor);

#endif
