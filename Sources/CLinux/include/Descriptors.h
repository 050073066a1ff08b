// How many descriptors this process may have. getrlimit(2), RLIMIT_NOFILE.
#ifndef CLINUX_DESCRIPTORS_H
#define CLINUX_DESCRIPTORS_H

#include <stdint.h>

// The soft limit, after it was raised to the hard one; the soft limit as it is if the system does not let us;
// UINT64_MAX if there is none, or the system does not say.
uint64_t sl_raise_descriptor_limit(void);
// Makes the kernel's table of descriptors as large as `count` needs. It grows by itself, and then waits for every
// processor (synchronize_rcu) in whichever call needed the next number. Returns 0, or an errno.
int sl_reserve_descriptors(uint64_t count);

#endif
