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
// SO_DOMAIN and SO_TYPE: 1 if it is a Unix stream socket. No file system is asked.
int sl_is_unix_stream(int socket);
// getsockname(2) and getpeername(2): 1 if it is a connected Unix socket and neither end has a name, as those have that
// socketpair(2) makes. The end of a connection that was made through a listener is not one of them.
int sl_is_unnamed_pair(int socket);
// poll(2), without waiting: 1 if bytes wait in it, or its other end is closed. Reading would take a lock that another
// process which has the same socket can hold for as long as it likes.
int sl_has_input_or_end(int socket);
// SO_PASSRIGHTS (Linux 6.16) of a socket, and of the connections of one that will listen: sending descriptors to it fails.
// Returns 0, or -1 with ENOPROTOOPT from an older kernel.
int sl_refuse_descriptors(int socket);
// shutdown(2): the other end sees the end at once, whenever this one is closed.
void sl_shut_down(int socket);

// recvmsg(2), never blocking. All descriptors that came are put into `descriptors` (room for SL_MOST_DESCRIPTORS),
// close-on-exec, and are the caller's. *foreign is 1 if something else than descriptors came along, or some were lost.
//
// The room is for all that the kernel passes with one message, whatever is wanted: what finds no room the kernel closes
// in this very call, on this thread, and that close may sleep. It also does so if the process has no free descriptor:
// the caller sees to it that there are as many.
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

// What a descriptor is, found without a request to its file's owner: see `sl_kind`.
enum { SL_KIND_OTHER, SL_KIND_MEMORY, SL_KIND_EVENT, SL_KIND_PIPE, SL_KIND_SOCKET, SL_KIND_ANONYMOUS, SL_KIND_PATH };
// Says what a descriptor of another process's is. None of its calls leaves the kernel's own memory:
//   fcntl(F_GETFL) reads a word of the open file;
//   fcntl(F_GET_SEALS) succeeds for regular files of tmpfs and hugetlbfs only, which it knows by their operations;
//   readlink(/proc/self/fd/N) is d_path(), which follows names in memory: also of a FUSE's or a network's file.
// fstat(2), fstatfs(2), read(2), write(2) and close(2) may all ask a file's owner. -1 and errno if it is not open, or
// there is no /proc.
int sl_kind(int descriptor);

// The type of the file system that a descriptor's file lies on, as in statfs(2). For memory only: see `sl_kind`.
int64_t sl_filesystem(int descriptor);
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
