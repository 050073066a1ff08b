#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

uint64_t sl_raise_descriptor_limit(void) {
  struct rlimit limit;
  // A filter of system calls may forbid the question.
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return UINT64_MAX;
  struct rlimit raised = {limit.rlim_max, limit.rlim_max};
  if (limit.rlim_cur != limit.rlim_max && setrlimit(RLIMIT_NOFILE, &raised) == 0) limit = raised;
  return limit.rlim_cur == RLIM_INFINITY ? UINT64_MAX : limit.rlim_cur;
}

int sl_reserve_descriptors(uint64_t count) {
  int any = eventfd(0, EFD_CLOEXEC);
  if (any < 0) return errno;
  int code = 0, last = fcntl(any, F_DUPFD_CLOEXEC, (int)(count - 1));
  if (last < 0) code = errno;
  if (last >= 0) close(last);
  close(any);
  return code;
}
