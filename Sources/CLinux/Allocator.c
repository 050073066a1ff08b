#include "Allocator.h"
#include <malloc.h>

void sl_return_blocks_from(int bytes) { mallopt(M_MMAP_THRESHOLD, bytes); }
