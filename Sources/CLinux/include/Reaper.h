// Closes descriptors that came from another process, on a thread that only their sender has a share in.
//
// The last close(2) of a file is its owner's to delay: a TCP socket lingers for as long as SO_LINGER says, a FUSE server
// answers FLUSH when it likes, a network file system writes back first, and a Unix socket drops the descriptors that wait
// in it. So no shared thread closes one.
#ifndef CLINUX_REAPER_H
#define CLINUX_REAPER_H

#include <stddef.h>

typedef struct sl_reaper sl_reaper;

// A queue, and a thread that starts with the first descriptor in it. NULL with errno if there is no memory.
// `room`: descriptors that it has memory for at once; more make it allocate.
sl_reaper *sl_reaper_make(int room);
// Counts descriptors that `sl_reaper_close` will be called for.
void sl_reaper_adopt(sl_reaper *reaper, int count);
// Queues a descriptor to be closed, and returns at once. From any thread.
void sl_reaper_close(sl_reaper *reaper, int number);
// Queues memory to be unmapped, and returns at once; it counts as a descriptor until that is done. From any thread. The last
// mapping of a file that has no descriptor any more frees its pages: of a large guest that takes seconds.
void sl_reaper_unmap(sl_reaper *reaper, void *start, size_t count);
// Raises an eventfd by one on the reaper's thread, and returns at once. From any thread. Whatever is queued is raised before a
// descriptor is closed or memory unmapped, so `number` may be given to `sl_reaper_close` behind this. Once more for one that is
// queued already is once.
void sl_reaper_raise(sl_reaper *reaper, int number);
// Descriptors that were counted and are not closed: in use, queued, or being closed.
int sl_reaper_open_count(sl_reaper *reaper);
// Descriptors and mappings that are queued, or being closed.
int sl_reaper_waiting_count(sl_reaper *reaper);
// Ends the thread once the queue is empty, and then frees everything. Returns at once. The last call.
void sl_reaper_end(sl_reaper *reaper);

#endif
