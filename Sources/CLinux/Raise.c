#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Raise.h"

#include "Sockets.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 256 };

// The kernel itself raises an eventfd without waiting, when a request that names it is done: io_submit(2),
// IOCB_FLAG_RESFD. The request here reads nothing from an empty file, and is done at once.
static aio_context_t context;
static int nothing = -1;

static void open_context(void) {
  nothing = memfd_create("nothing", MFD_CLOEXEC);
  // Where there is none (aio-max-nr, a filter of system calls), `context` stays 0.
  if (nothing >= 0 && syscall(SYS_io_setup, ROOM, &context) != 0) context = 0;
}

// Makes room for further requests: each leaves a word that it is done.
static void forget_done(void) {
  struct io_event events[ROOM];
  struct timespec at_once = {0, 0};
  (void)syscall(SYS_io_getevents, context, 0, ROOM, events, &at_once);
}

int sl_raise(int number) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, open_context);
  uint64_t one = 1;
  if (context == 0) {
    // Better than nothing: who takes the flag back at the right moment still makes us wait.
    if (sl_set_nonblocking(number) != 0) return -1;
    return write(number, &one, sizeof one) == sizeof one || errno == EAGAIN ? 0 : -1;
  }
  struct iocb request = {0};
  request.aio_fildes = (uint32_t)nothing;
  request.aio_lio_opcode = IOCB_CMD_PREAD;
  request.aio_flags = IOCB_FLAG_RESFD;
  request.aio_resfd = (uint32_t)number;
  struct iocb *requests = &request;
  // Other threads may take the room that is made.
  for (int attempt = 0; attempt < 16; attempt++) {
    if (syscall(SYS_io_submit, context, 1, &requests) == 1) return 0;
    if (errno != EAGAIN) return -1;
    forget_done();
  }
  return -1;
}
