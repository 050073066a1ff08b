#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Raise.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 256 };

// The kernel itself raises an eventfd without waiting, when a request that names it is done: io_submit(2),
// IOCB_FLAG_RESFD. The request here reads nothing from an empty file, and is done at once.
//
// There is no other call that raises an eventfd and cannot wait: pwritev2(2) with RWF_NOWAIT is refused (an eventfd has
// no write_iter), and io_uring is often switched off (kernel.io_uring_disabled, filters of system calls).
static _Atomic(aio_context_t) context;
static int nothing = -1;
static pthread_mutex_t preparing = PTHREAD_MUTEX_INITIALIZER;

int sl_raise_prepare(void) {
  if (atomic_load_explicit(&context, memory_order_acquire) != 0) return 0;
  int code = 0;
  pthread_mutex_lock(&preparing);
  if (atomic_load_explicit(&context, memory_order_relaxed) == 0) {
    if (nothing < 0) nothing = memfd_create("nothing", MFD_CLOEXEC);
    aio_context_t made = 0;
    if (nothing < 0 || syscall(SYS_io_setup, ROOM, &made) != 0) {
      code = errno;
    } else {
      atomic_store_explicit(&context, made, memory_order_release);
    }
  }
  pthread_mutex_unlock(&preparing);
  errno = code;
  return code == 0 ? 0 : -1;
}

// Makes room for further requests: each leaves a word that it is done.
static void forget_done(aio_context_t context) {
  struct io_event events[ROOM];
  struct timespec at_once = {0, 0};
  (void)syscall(SYS_io_getevents, context, 0, ROOM, events, &at_once);
}

int sl_raise(int number) {
  aio_context_t ours = atomic_load_explicit(&context, memory_order_acquire);
  if (ours == 0) {
    if (sl_raise_prepare() != 0) return -1;
    ours = atomic_load_explicit(&context, memory_order_acquire);
  }
  struct iocb request = {0};
  request.aio_fildes = (uint32_t)nothing;
  request.aio_lio_opcode = IOCB_CMD_PREAD;
  request.aio_flags = IOCB_FLAG_RESFD;
  request.aio_resfd = (uint32_t)number;
  struct iocb *requests = &request;
  // Other threads may take the room that is made.
  for (int attempt = 0; attempt < 16; attempt++) {
    if (syscall(SYS_io_submit, ours, 1, &requests) == 1) return 0;
    if (errno != EAGAIN) return -1;
    forget_done(ours);
  }
  return -1;
}
