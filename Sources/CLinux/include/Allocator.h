#pragma once

// Blocks of so many bytes and more go back to the machine when they are freed, and the C library does not raise that mark
// by itself. mallopt(3), M_MMAP_THRESHOLD.
void sl_return_blocks_from(int bytes);
