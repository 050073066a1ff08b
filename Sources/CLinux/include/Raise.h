// Raising an eventfd that somebody else has too.
#ifndef CLINUX_RAISE_H
#define CLINUX_RAISE_H

// Adds one to an eventfd's counter, and never waits. Writing to it would: O_NONBLOCK belongs to the open file, so whoever
// else has it can take that back, and fill the counter. A full one is as good as raised.
//
// Returns 0, or -1 and errno.
int sl_raise(int number);

#endif
