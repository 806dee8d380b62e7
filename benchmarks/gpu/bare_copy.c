/* The floor of the GPU benchmark: bare asynchronous copies through the CUDA driver API, in C.
 *
 * Built and loaded at run time (bare.py); does not link CUDA. Without a library, the calls are
 * stubs on host memory, so that everything runs without a GPU.
 */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int (*copy_call)(void *to, unsigned long long from, size_t bytes, void *stream);
typedef int (*alloc_call)(void **memory, size_t bytes, unsigned flags);
typedef int (*event_create_call)(void **event, unsigned flags);
typedef int (*event_record_call)(void *event, void *stream);

enum { SLOTS = 4096, SLOT_BYTES = 8, EVENTS = 512, PORTABLE = 1, DISABLE_TIMING = 2 };
enum { NO_LIBRARY = -1, NO_SYMBOL = -2, TOO_MANY = -3 };

static copy_call copy;
static event_record_call event_record;
static uint8_t *slots;
static void *events[EVENTS];
static unsigned next_slot, next_event;

static int host_copy(void *to, unsigned long long from, size_t bytes, void *stream) {
  (void)stream;
  memcpy(to, (const void *)(uintptr_t)from, bytes);
  return 0;
}

static int host_event_record(void *event, void *stream) {
  (void)event;
  (void)stream;
  return 0;
}

/* Loads the calls from `library` (NULL: stubs); the caller's context must be current.
 * Returns 0, a CUresult, or one of the negative codes above. */
int bare_open(const char *library) {
  if (library == NULL) {
    copy = host_copy;
    event_record = host_event_record;
    slots = calloc(SLOTS, SLOT_BYTES);
    return slots == NULL ? TOO_MANY : 0;
  }
  void *driver = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (driver == NULL) return NO_LIBRARY;
  copy = (copy_call)dlsym(driver, "cuMemcpyDtoHAsync_v2");
  event_record = (event_record_call)dlsym(driver, "cuEventRecord");
  alloc_call alloc = (alloc_call)dlsym(driver, "cuMemHostAlloc");
  event_create_call event_create = (event_create_call)dlsym(driver, "cuEventCreate");
  if (!copy || !event_record || !alloc || !event_create) return NO_SYMBOL;
  int error = alloc((void **)&slots, (size_t)SLOTS * SLOT_BYTES, PORTABLE);
  for (int i = 0; i < EVENTS && !error; ++i) error = event_create(&events[i], DISABLE_TIMING);
  return error;
}

/* Makes `steps` times `count` copies of bytes[i] from from[i] and records one event.
 * Returns the total nanoseconds, or the negated error. */
long long bare_time(const uint64_t *from, const int *bytes, int count, void *stream, int steps) {
  struct timespec start, end;
  if (count > SLOTS) return TOO_MANY;
  for (int i = 0; i < count; ++i)
    if (bytes[i] > SLOT_BYTES) return TOO_MANY;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int step = 0; step < steps; ++step) {
    for (int i = 0; i < count; ++i) {
      void *to = slots + (size_t)(next_slot++ % SLOTS) * SLOT_BYTES;
      int error = copy(to, from[i], (size_t)bytes[i], stream);
      if (error) return -(long long)error;
    }
    int error = event_record(events[next_event++ % EVENTS], stream);
    if (error) return -(long long)error;
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  return (end.tv_sec - start.tv_sec) * 1000000000LL + (end.tv_nsec - start.tv_nsec);
}

/* Copies the `count` most recently written slots to `to`, oldest first. */
void bare_last(uint8_t *to, int count) {
  for (int i = 0; i < count; ++i)
    memcpy(to + (size_t)i * SLOT_BYTES,
           slots + (size_t)((next_slot - (unsigned)count + (unsigned)i) % SLOTS) * SLOT_BYTES,
           SLOT_BYTES);
}
