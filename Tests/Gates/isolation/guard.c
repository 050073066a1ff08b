// guard SECONDS: Sources/CLinux/Guard.c alone under stress. One thread touches a guarded page whose file has become shorter, so
// that the SIGBUS handler puts zeros in its place, again and again. Another changes ranges that stand before it in the guard's
// table: each is now below that page, now above it. A handler that reads the start of the one and the end of the other puts zeros
// over all that lies between, which is guarded by neither. Prints "wiped N of M faults".
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "Guard.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

// Ranges that change, so many that the handler spends much of its time at them.
enum { page = 4096, changing = 200, below = 0, touched = changing, bystander = touched + 1, above = bystander + 1, pages = above + changing };

static uint8_t *arena;
static atomic_bool ends;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
static uint8_t *at(int n) { return arena + (size_t)n * page; }

static void map(int first, int count, int file) {
  int flags = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void *place = mmap(at(first), (size_t)count * page, PROT_READ | PROT_WRITE, flags | MAP_FIXED, file, 0);
  if (place == MAP_FAILED) perror("mmap"), exit(2);
}

// All of them from below to above, a nap, and back. The slot that was freed is the first free one, so it is taken again. It wakes
// up on the processor of the handler, which it so interrupts at any of its instructions.
static void *change(void *slots) {
  int *numbers = slots;
  prctl(PR_SET_TIMERSLACK, 1000);
  for (int side = above; !ends; side = side == above ? below : above) {
    for (int n = 0; n < changing; n++) {
      sl_guard_end(numbers[n]);
      numbers[n] = sl_guard(at(side + n), page);
    }
    usleep(20);
  }
  return NULL;
}

int main(int count, char **words) {
  double end = now() + (count > 1 ? atof(words[1]) : 5);
  long faults = 0, wiped = 0;
  int slots[changing], file = memfd_create("short", MFD_CLOEXEC);
  arena = mmap(NULL, (size_t)pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (file < 0 || arena == MAP_FAILED) return perror("memory"), 2;
  for (int n = 0; n < changing; n++) slots[n] = sl_guard(at(below + n), page);
  sl_guard(at(touched), page);
  map(touched, 1, file), memset(at(bystander), 0x5a, page);
  cpu_set_t set;
  sched_getaffinity(0, sizeof set, &set);
  for (int k = 0, found = 0; k < CPU_SETSIZE; k++) if (CPU_ISSET(k, &set) && found++) CPU_CLR(k, &set);
  sched_setaffinity(0, sizeof set, &set);
  pthread_t thread;
  pthread_create(&thread, NULL, change, slots);
  while (now() < end) {
    for (int n = 0; n < 256; n++, faults++) {
      (void)*(volatile uint8_t *)at(touched);
      if (*(volatile uint8_t *)at(bystander) != 0x5a) wiped++, map(bystander, 1, -1), memset(at(bystander), 0x5a, page);
      map(touched, 1, file);
    }
  }
  ends = 1;
  pthread_join(thread, NULL);
  printf("wiped %ld of %ld faults\n", wiped, faults);
  return 0;
}
