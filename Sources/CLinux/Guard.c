#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Guard.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

// A sanitizer takes locks of its own around an access that it watches, and the signal comes from within such an access: in the
// handler it must watch none, nor a function that it wraps.
#if defined(__has_attribute)
#if __has_attribute(disable_sanitizer_instrumentation)
#define IN_HANDLER __attribute__((disable_sanitizer_instrumentation))
#endif
#endif
#ifndef IN_HANDLER
#define IN_HANDLER
#endif

// 32 guests of 512 regions, and a log, each, while one table takes the place of another: nobody can take another's.
enum { GUARDS = 2 * 32 * 513 };

// A range is guarded while `start` is not 0. Slots are aligned to their size, so that none lies in two cache lines.
//
// The handler takes no lock, and yet must see both bounds of one range, and must not put zeros over addresses that were
// given back meanwhile and now hold something else. So it first enters the slot, then reads the bounds, and leaves after
// its mmap(2). `sl_guard_end` first takes `start` away, then waits until no handler is inside. Each side stores before it
// loads, both sequentially consistent: either the handler finds `start` gone, or `sl_guard_end` finds the handler and
// returns only when it has left. Until then the slot is not free for another range, for the table's lock is held.
struct guard {
  _Atomic uintptr_t start;
  _Atomic uintptr_t end;
  _Atomic int touched;
  // Handlers that are between their first look at the bounds and their last use of them.
  _Atomic int inside;
} __attribute__((aligned(32)));
_Static_assert(sizeof(struct guard) == 32, "a slot lies in one cache line");
static struct guard guards[GUARDS];

static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before;

IN_HANDLER static int contains(struct guard *slot, uintptr_t address, uintptr_t *start, uintptr_t *end) {
  *start = atomic_load(&slot->start);
  *end = atomic_load(&slot->end);
  return *start != 0 && address >= *start && address < *end;
}

// Puts zeros in place of the whole range: what its owner has taken a part of back is not used any more, and so one
// signal is all that it can cost.
IN_HANDLER static int mend(uintptr_t address) {
  for (int n = 0; n < GUARDS; n++) {
    struct guard *slot = &guards[n];
    uintptr_t start, end;
    // Only to pass by most slots: what is found is read again inside. A range that is in use is not ended meanwhile, so
    // that the one that is looked for is not passed by.
    if (!contains(slot, address, &start, &end)) continue;
    atomic_fetch_add(&slot->inside, 1);
    int is_here = contains(slot, address, &start, &end), is_mended = 0;
    if (is_here) {
      atomic_store_explicit(&slot->touched, 1, memory_order_release);
      // Bare: POSIX does not say that mmap(2)'s wrapper may be called by a handler.
      is_mended = syscall(SYS_mmap, start, end - start, (long)(PROT_READ | PROT_WRITE),
                          (long)(MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE), -1L, 0L) != -1;
    }
    atomic_fetch_sub(&slot->inside, 1);
    if (is_here) return is_mended;
  }
  return 0;
}

IN_HANDLER static void on_bus_error(int signal, siginfo_t *info, void *context) {
  (void)context;
  int code = errno;
  // BUS_ADRERR: no such page. A page that the machine has lost is another matter, and is not made up for.
  int is_mended = info->si_code == BUS_ADRERR && mend((uintptr_t)info->si_addr);
  errno = code;
  // The access is repeated when this returns, and then handled as if we had never been.
  if (!is_mended) sigaction(signal, &before, NULL);
}

static void install(void) {
  struct sigaction action = {0};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &before);
}

int sl_guard(void *start, size_t count) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, install);
  int found = -1;
  pthread_mutex_lock(&table);
  for (int n = 0; n < GUARDS && found < 0; n++) {
    if (atomic_load_explicit(&guards[n].start, memory_order_relaxed) == 0) found = n;
  }
  if (found >= 0) {
    atomic_store(&guards[found].end, (uintptr_t)start + count);
    atomic_store_explicit(&guards[found].touched, 0, memory_order_relaxed);
    atomic_store(&guards[found].start, (uintptr_t)start);
  }
  pthread_mutex_unlock(&table);
  return found;
}

int sl_guard_was_touched(int number) {
  return number >= 0 && number < GUARDS && atomic_load_explicit(&guards[number].touched, memory_order_acquire);
}

void sl_guard_end(int number) {
  if (number < 0 || number >= GUARDS) return;
  pthread_mutex_lock(&table);
  atomic_store(&guards[number].start, 0);
  // As long as one mmap(2) takes. A handler needs no lock of ours to leave.
  while (atomic_load(&guards[number].inside) != 0) sched_yield();
  pthread_mutex_unlock(&table);
}
