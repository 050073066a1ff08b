// Access to memory that another agent (a guest, a NIC) may write at any moment, and the few
// things of Linux that Swift cannot name. Header-only, so that every access is inlined.
//
// Each load and store here is one access of its width: never torn, never repeated, never merged.
#ifndef CLINUX_H
#define CLINUX_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

// Lets a Swift function marked @_noLocks call these.
#if defined(__has_attribute)
#if __has_attribute(swift_attr)
#define SL_NOLOCKS __attribute__((swift_attr("@_noLocks")))
#endif
#endif
#ifndef SL_NOLOCKS
#define SL_NOLOCKS
#endif
#define SL_INLINE static inline __attribute__((always_inline)) SL_NOLOCKS

// Loads.
SL_INLINE uint8_t sl_load8(const void *p) { return __atomic_load_n((const uint8_t *)p, __ATOMIC_RELAXED); }
SL_INLINE uint16_t sl_load16(const void *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED); }
SL_INLINE uint32_t sl_load32(const void *p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED); }
SL_INLINE uint64_t sl_load64(const void *p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED); }
SL_INLINE uint16_t sl_load16_acquire(const void *p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE); }
SL_INLINE uint32_t sl_load32_acquire(const void *p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_ACQUIRE); }
SL_INLINE uint64_t sl_load64_acquire(const void *p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_ACQUIRE); }

// Stores.
SL_INLINE void sl_store8(void *p, uint8_t v) { __atomic_store_n((uint8_t *)p, v, __ATOMIC_RELAXED); }
SL_INLINE void sl_store16(void *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELAXED); }
SL_INLINE void sl_store32(void *p, uint32_t v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELAXED); }
SL_INLINE void sl_store64(void *p, uint64_t v) { __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELAXED); }
SL_INLINE void sl_store16_release(void *p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE); }
SL_INLINE void sl_store32_release(void *p, uint32_t v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELEASE); }
SL_INLINE void sl_store64_release(void *p, uint64_t v) { __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELEASE); }

// Sets bits in a byte that others change too; answers what was there. Everything stored before is seen by who sees it.
SL_INLINE uint8_t sl_or8(void *p, uint8_t v) { return __atomic_fetch_or((uint8_t *)p, v, __ATOMIC_RELEASE); }

// Orders a store before a later load of another location: what a notification decision needs.
SL_INLINE void sl_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
SL_INLINE void sl_fence_release(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }
SL_INLINE void sl_fence_acquire(void) { __atomic_thread_fence(__ATOMIC_ACQUIRE); }

// Device registers: volatile; a write is ordered after every earlier store to memory. It is a release store by itself, too: a
// model's doorbell is a word that another thread loads with acquire. A processor's instruction for it is the same.
SL_INLINE uint32_t sl_mmio_read32(const void *p) { return *(const volatile uint32_t *)p; }
SL_INLINE void sl_mmio_write32(void *p, uint32_t v) {
  __atomic_thread_fence(__ATOMIC_RELEASE);
  __atomic_store_n((volatile uint32_t *)p, v, __ATOMIC_RELEASE);
}

// Copies. The source may change while it is read: what is copied is then checked, not the source.
SL_INLINE void sl_copy(void *to, const void *from, size_t n) { memcpy(to, from, n); }
// The same of a frame: the smallest, of which there are most, without a call.
SL_INLINE void sl_copy_frame(void *to, const void *from, size_t n) {
  if (n >= 32 && n <= 64) {
    char first[32], last[32];
    memcpy(first, from, 32);
    memcpy(last, (const char *)from + n - 32, 32);
    memcpy(to, first, 32);
    memcpy((char *)to + n - 32, last, 32);
  } else {
    memcpy(to, from, n);
  }
}
SL_INLINE void sl_move(void *to, const void *from, size_t n) { memmove(to, from, n); }
SL_INLINE void sl_fill(void *to, uint8_t v, size_t n) { memset(to, v, n); }
SL_INLINE void sl_prefetch(const void *p) { __builtin_prefetch(p, 0, 3); }
// Asks for a line to write to it. The compiler's own is a prefetch for reading on a plain x86-64, and then the write still
// has to take the line away from its other holder. Where the instruction is not known it does nothing.
SL_INLINE void sl_prefetch_write(const void *p) {
#if defined(__x86_64__)
  __asm__ volatile("prefetchw %0" : : "m"(*(const char *)p));
#else
  __builtin_prefetch(p, 1, 3);
#endif
}

// Tells the core that this thread spins.
SL_INLINE void sl_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// A counter of constant rate, not ordered with the code around it: for costs of whole batches.
SL_INLINE uint64_t sl_ticks(void) {
#if defined(__x86_64__)
  uint32_t low, high;
  __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
  return ((uint64_t)high << 32) | low;
#elif defined(__aarch64__)
  uint64_t v;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
  return v;
#endif
}

// memfd_create(2); flags as in <linux/memfd.h>.
static inline int sl_memfd_create(const char *name, unsigned int flags) { return memfd_create(name, flags); }
static inline unsigned int sl_mfd_cloexec(void) { return MFD_CLOEXEC; }
static inline unsigned int sl_mfd_allow_sealing(void) { return MFD_ALLOW_SEALING; }
static inline unsigned int sl_mfd_hugetlb(void) { return MFD_HUGETLB; }

// eventfd(2), close-on-exec, never blocking.
static inline int sl_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

// poll(2), for so many nanoseconds, or, with a negative number, for as long as it takes.
static inline int sl_poll(struct pollfd *requests, nfds_t count, int64_t nanoseconds) {
  struct timespec time = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
  return ppoll(requests, count, nanoseconds < 0 ? NULL : &time, NULL);
}

// Pins the calling thread to one processor. Returns 0 or an errno.
static inline int sl_pin_to_processor(int number) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (number < 0 || number >= CPU_SETSIZE) return 22;
  CPU_SET(number, &set);
  return pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

// Lets the calling thread run on every processor again.
static inline void sl_unpin(void) {
  cpu_set_t set;
  memset(&set, 0xff, sizeof set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

// Whether this process may run on a processor.
static inline int sl_may_run_on(int number) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (number < 0 || number >= CPU_SETSIZE || sched_getaffinity(0, sizeof set, &set) != 0) return 0;
  return CPU_ISSET(number, &set) ? 1 : 0;
}

#include "Allocator.h"
#include "Descriptors.h"
#include "Guard.h"
#include "Raise.h"
#include "Reaper.h"
#include "Sockets.h"
#include "Tap.h"
#include "VFIO.h"

#endif
