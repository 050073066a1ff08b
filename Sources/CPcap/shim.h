#include <pcap/pcap.h>
#include <stdio_ext.h>

/* glibc declares this under _GNU_SOURCE only, and Swift's Glibc module is built without it. */
#include <bits/types/cookie_io_functions_t.h>
extern FILE *fopencookie(void *__restrict cookie, const char *__restrict mode,
                         cookie_io_functions_t functions);
