// feed TRACE.pcap LAPS SHARE OF > PIPE
//
// On the host: writes the records of a capture into a pipe that another program reads as one, LAPS times; with OF > 1
// only every OF-th frame, from the SHARE-th on. A record is one write, and so whole in the pipe or not there, whenever
// this is killed: none is as long as PIPE_BUF.
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **words) {
  if (count != 5) return fprintf(stderr, "usage: feed TRACE.pcap LAPS SHARE OF > PIPE\n"), 64;
  long laps = atol(words[2]), share = atol(words[3]), of = atol(words[4]);
  FILE *trace = fopen(words[1], "r");
  if (!trace || of < 1) return perror(words[1]), 65;
  for (long lap = 0; lap < laps; lap++) {
    fseek(trace, 24, SEEK_SET);
    union { uint32_t header[4]; char bytes[PIPE_BUF]; } record;
    for (long k = 0; fread(record.header, 16, 1, trace) == 1; k++) {
      size_t length = record.header[2];
      if (length > PIPE_BUF - 16 || fread(record.bytes + 16, length, 1, trace) != 1) return fprintf(stderr, "feed: not so long a frame\n"), 65;
      if (k % of == share && write(STDOUT_FILENO, record.bytes, 16 + length) < 0) return perror("feed"), 74;
    }
  }
  return 0;
}
