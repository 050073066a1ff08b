// Raising an eventfd that another process has too.
#ifndef CLINUX_RAISE_H
#define CLINUX_RAISE_H

// Prepares `sl_raise`: to be called once before the first stranger's eventfd is raised, at a program's start.
//
// It makes the process's one AIO context. `fs.aio-max-nr` bounds those of the whole machine, and any user can take them
// all: a context that is made at the start cannot be taken away later, one that is made at the first notification may
// not be there. Returns 0, or -1 and io_setup(2)'s errno: EAGAIN if there is no room below fs.aio-max-nr. Further calls
// try again if the first failed, and return 0 otherwise.
int sl_raise_prepare(void);

// Adds one to an eventfd's counter, and never waits. write(2) would: O_NONBLOCK belongs to the open file, so another
// process that has it can take that back, and fill the counter. A full counter is as good as raised.
//
// Prepares itself if that was not done. Returns 0, or -1 and errno; it never falls back on a call that can wait.
int sl_raise(int number);

#endif
