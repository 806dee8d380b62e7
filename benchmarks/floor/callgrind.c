/* Starts and ends the count of benchmarks/lines.py; callgrind forgets its caches at each start. */
#include <valgrind/callgrind.h>

void count_start(void);
void count_end(void);

void count_start(void) { CALLGRIND_START_INSTRUMENTATION; }

void count_end(void) {
    CALLGRIND_STOP_INSTRUMENTATION;
    CALLGRIND_DUMP_STATS;
}
