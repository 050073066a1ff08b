#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

// 32 guests of 512 regions, and a log, each, while one table takes the place of another: nobody can take another's.
enum { GUARDS = 2 * 32 * 513 };

// A range is guarded while `start` is not 0; the rest is written before, and `start` last. The handler takes no lock.
static struct {
  _Atomic uintptr_t start;
  _Atomic uintptr_t end;
  _Atomic int touched;
} guards[GUARDS];

static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction before;

// Puts zeros in place of the whole range: what its owner has taken a part of back is not used any more, and so one
// signal is all that it can cost.
static int mend(uintptr_t address) {
  for (int n = 0; n < GUARDS; n++) {
    uintptr_t start = atomic_load_explicit(&guards[n].start, memory_order_acquire);
    uintptr_t end = atomic_load_explicit(&guards[n].end, memory_order_relaxed);
    if (start == 0 || address < start || address >= end) continue;
    atomic_store_explicit(&guards[n].touched, 1, memory_order_release);
    void *zeros = mmap((void *)start, end - start, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    return zeros != MAP_FAILED;
  }
  return 0;
}

static void on_bus_error(int signal, siginfo_t *info, void *context) {
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
    atomic_store_explicit(&guards[found].end, (uintptr_t)start + count, memory_order_relaxed);
    atomic_store_explicit(&guards[found].touched, 0, memory_order_relaxed);
    atomic_store_explicit(&guards[found].start, (uintptr_t)start, memory_order_release);
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
  atomic_store_explicit(&guards[number].start, 0, memory_order_release);
  pthread_mutex_unlock(&table);
}
