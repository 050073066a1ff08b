#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Reaper.h"
#include "Raise.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// Of the thread, in bytes: it calls close(2), and a C library keeps its own data there too.
enum { STACK = 256 << 10 };
// What is unmapped at a time, in bytes: while the kernel takes pages out of this process's table, no other thread can map or
// unmap anything. 16 MiB are 4,096 pages, some 0.1 ms.
static const size_t CHUNK = 16 << 20;

// Memory to be unmapped.
struct range {
  struct range *next;
  char *start;
  size_t count;
};

struct sl_reaper {
  pthread_mutex_t lock;
  pthread_cond_t news;
  // A stack, for the order does not matter.
  int *numbers;
  int count, capacity;
  struct range *ranges;
  int range_count;
  // Eventfds to be raised, each once.
  int *raises;
  int raise_count, raise_capacity;
  int is_closing;
  int open;
  int has_thread;
  int is_ending;
};

static void release(sl_reaper *reaper) {
  pthread_cond_destroy(&reaper->news);
  pthread_mutex_destroy(&reaper->lock);
  free(reaper->numbers);
  free(reaper->raises);
  free(reaper);
}

// If the mapping is the last that has the file open, all of its pages are freed here: some 0.05 s for a GiB.
static void unmap(struct range *range) {
  for (size_t done = 0; done < range->count; done += CHUNK) {
    size_t left = range->count - done;
    if (madvise(range->start + done, left < CHUNK ? left : CHUNK, MADV_DONTNEED) != 0) break;
  }
  (void)munmap(range->start, range->count);
  free(range);
}

// The lock is held.
static int is_idle(const sl_reaper *reaper) { return reaper->count == 0 && reaper->ranges == NULL && reaper->raise_count == 0; }

static void *run(void *argument) {
  sl_reaper *reaper = argument;
  (void)pthread_setname_np(pthread_self(), "reaper");
  pthread_mutex_lock(&reaper->lock);
  for (;;) {
    while (is_idle(reaper) && !reaper->is_ending) pthread_cond_wait(&reaper->news, &reaper->lock);
    if (reaper->raise_count > 0) {
      int number = reaper->raises[--reaper->raise_count];
      // Nobody closes it meanwhile: only this thread does.
      pthread_mutex_unlock(&reaper->lock);
      (void)sl_raise(number);
      pthread_mutex_lock(&reaper->lock);
      continue;
    }
    struct range *range = reaper->ranges;
    if (reaper->count == 0 && range == NULL) break;
    int number = -1;
    // Memory first: closing may take for ever.
    if (range != NULL) {
      reaper->ranges = range->next;
      reaper->range_count--;
    } else {
      number = reaper->numbers[--reaper->count];
    }
    reaper->is_closing = 1;
    pthread_mutex_unlock(&reaper->lock);
    if (range != NULL) unmap(range); else (void)close(number);
    pthread_mutex_lock(&reaper->lock);
    reaper->is_closing = 0;
    reaper->open--;
  }
  pthread_mutex_unlock(&reaper->lock);
  release(reaper);
  return NULL;
}

// The lock is held. Without a thread the descriptors stay open and counted, and the next call tries again.
static void start_thread(sl_reaper *reaper) {
  if (reaper->has_thread || is_idle(reaper)) return;
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return;
  (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  (void)pthread_attr_setstacksize(&attributes, STACK);
  // Signals are another thread's.
  sigset_t all, before;
  sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  reaper->has_thread = pthread_create(&thread, &attributes, run, reaper) == 0;
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
}

sl_reaper *sl_reaper_make(int room) {
  sl_reaper *reaper = calloc(1, sizeof *reaper);
  if (reaper == NULL) return NULL;
  reaper->capacity = room > 0 ? room : 1;
  reaper->numbers = malloc((size_t)reaper->capacity * sizeof *reaper->numbers);
  if (reaper->numbers == NULL) {
    free(reaper);
    errno = ENOMEM;
    return NULL;
  }
  pthread_mutex_init(&reaper->lock, NULL);
  pthread_cond_init(&reaper->news, NULL);
  return reaper;
}

void sl_reaper_adopt(sl_reaper *reaper, int count) {
  pthread_mutex_lock(&reaper->lock);
  reaper->open += count;
  pthread_mutex_unlock(&reaper->lock);
}

void sl_reaper_close(sl_reaper *reaper, int number) {
  pthread_mutex_lock(&reaper->lock);
  if (reaper->count == reaper->capacity) {
    int *larger = realloc(reaper->numbers, 2 * (size_t)reaper->capacity * sizeof *larger);
    if (larger != NULL) {
      reaper->numbers = larger;
      reaper->capacity *= 2;
    }
  }
  // Without memory it stays open, and counts against its VM.
  if (reaper->count < reaper->capacity) reaper->numbers[reaper->count++] = number;
  start_thread(reaper);
  pthread_cond_signal(&reaper->news);
  pthread_mutex_unlock(&reaper->lock);
}

void sl_reaper_unmap(sl_reaper *reaper, void *start, size_t count) {
  struct range *range = malloc(sizeof *range);
  if (range == NULL) {
    (void)munmap(start, count);
    return;
  }
  pthread_mutex_lock(&reaper->lock);
  *range = (struct range){reaper->ranges, start, count};
  reaper->ranges = range;
  reaper->range_count++;
  reaper->open++;
  start_thread(reaper);
  pthread_cond_signal(&reaper->news);
  pthread_mutex_unlock(&reaper->lock);
}

void sl_reaper_raise(sl_reaper *reaper, int number) {
  pthread_mutex_lock(&reaper->lock);
  int at = 0;
  while (at < reaper->raise_count && reaper->raises[at] != number) at++;
  if (at == reaper->raise_capacity) {
    int capacity = at > 0 ? 2 * at : 16;
    int *larger = realloc(reaper->raises, (size_t)capacity * sizeof *larger);
    if (larger != NULL) reaper->raises = larger, reaper->raise_capacity = capacity;
  }
  // Without memory it is not raised.
  if (at == reaper->raise_count && at < reaper->raise_capacity) reaper->raises[reaper->raise_count++] = number;
  start_thread(reaper);
  pthread_cond_signal(&reaper->news);
  pthread_mutex_unlock(&reaper->lock);
}

int sl_reaper_open_count(sl_reaper *reaper) {
  pthread_mutex_lock(&reaper->lock);
  start_thread(reaper);
  int count = reaper->open;
  pthread_mutex_unlock(&reaper->lock);
  return count;
}

int sl_reaper_waiting_count(sl_reaper *reaper) {
  pthread_mutex_lock(&reaper->lock);
  start_thread(reaper);
  int count = reaper->count + reaper->range_count + reaper->is_closing;
  pthread_mutex_unlock(&reaper->lock);
  return count;
}

void sl_reaper_end(sl_reaper *reaper) {
  pthread_mutex_lock(&reaper->lock);
  reaper->is_ending = 1;
  start_thread(reaper);
  int has_thread = reaper->has_thread;
  pthread_cond_signal(&reaper->news);
  pthread_mutex_unlock(&reaper->lock);
  if (!has_thread) release(reaper);
}
