// Memory of a file that somebody else may make shorter: who touches what is gone gets SIGBUS. A guarded range gets
// zeros instead, and says so.
#ifndef CLINUX_GUARD_H
#define CLINUX_GUARD_H

#include <stddef.h>

// Guards a mapped range from now on; it begins and ends at a page of its file. The first call installs the process's
// SIGBUS handler; a SIGBUS that no guarded range explains goes to what was installed before.
// Returns a number to ask and end it by, or -1 if there are too many.
int sl_guard(void *start, size_t count);
// Whether something was touched that was gone. From then on the whole range is private zeros.
int sl_guard_was_touched(int number);
// To be called before the range is unmapped. When it returns, no handler puts zeros there any more: the addresses may be
// used for something else.
void sl_guard_end(int number);

#endif
