/* Host cost of single CUDA driver calls, without Python in between.
 *
 * Built and loaded at run time; does not link CUDA. The caller's context must be current.
 */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

enum { MOST = 512, PORTABLE = 1, DISABLE_TIMING = 2, NOT_READY = 600 };
enum { NO_LIBRARY = -1, NO_SYMBOL = -2, TOO_MANY = -3 };
enum Call { GET_CURRENT, IS_CAPTURING, COPY, RECORD, CREATE, QUERY, ALLOC };

static int (*get_current)(void **context);
static int (*is_capturing)(void *stream, int *status);
static int (*copy)(void *to, unsigned long long from, size_t bytes, void *stream);
static int (*event_create)(void **event, unsigned flags);
static int (*event_destroy)(void *event);
static int (*event_record)(void *event, void *stream);
static int (*event_query)(void *event);
static int (*host_alloc)(void **memory, size_t bytes, unsigned flags);

static unsigned char *pinned;
static void *events[MOST];
static void *made[MOST];

/* Loads the calls from `library`, and creates memory and events for them. Returns 0, a CUresult or a
 * code above. */
int micro_open(const char *library) {
  const struct {
    void *to;
    const char *name;
  } wanted[] = {
      {&get_current, "cuCtxGetCurrent"},     {&is_capturing, "cuStreamIsCapturing"},
      {&copy, "cuMemcpyDtoHAsync_v2"},       {&event_create, "cuEventCreate"},
      {&event_destroy, "cuEventDestroy_v2"}, {&event_record, "cuEventRecord"},
      {&event_query, "cuEventQuery"},        {&host_alloc, "cuMemHostAlloc"},
  };
  void *driver = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (driver == NULL) return NO_LIBRARY;
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; ++i) {
    void *found = dlsym(driver, wanted[i].name);
    if (found == NULL) return NO_SYMBOL;
    *(void **)wanted[i].to = found;
  }
  int error = host_alloc((void **)&pinned, MOST * sizeof(uint64_t), PORTABLE);
  for (int i = 0; i < MOST && !error; ++i) error = event_create(&events[i], DISABLE_TIMING);
  return error;
}

static int once(enum Call call, int i, unsigned long long from, void *stream) {
  void *handle;
  int status;
  switch (call) {
    case GET_CURRENT: return get_current(&handle);
    case IS_CAPTURING: return is_capturing(NULL, &status);
    case COPY: return copy(pinned + (size_t)i * sizeof(uint64_t), from, 4, stream);
    case RECORD: return event_record(events[i], stream);
    case CREATE: return event_create(&made[i], DISABLE_TIMING);
    case QUERY: status = event_query(events[i]); return status == NOT_READY ? 0 : status;
    case ALLOC: return host_alloc(&handle, 256 << 10, PORTABLE); /* never freed: that may wait */
  }
  return NO_SYMBOL;
}

/* Returns how many of the first slots do not have the value copied last. */
int micro_wrong(int times, float value) {
  int wrong = 0;
  for (int i = 0; i < times; ++i) {
    float found;
    memcpy(&found, pinned + (size_t)i * sizeof(uint64_t), sizeof found);
    wrong += found != value;
  }
  return wrong;
}

/* Repeats a call `times` times; returns the total nanoseconds, or the negated error. Its effects are
 * undone off the clock. */
long long micro_time(int call, int times, unsigned long long from, void *stream) {
  struct timespec start, end;
  int error = times > MOST ? TOO_MANY : 0;
  clock_gettime(CLOCK_MONOTONIC, &start);
  int done = 0;
  for (; done < times && !error; ++done) error = once((enum Call)call, done, from, stream);
  clock_gettime(CLOCK_MONOTONIC, &end);
  for (int i = 0; call == CREATE && i < done; ++i) event_destroy(made[i]);
  if (error) return error < 0 ? error : -(long long)error;
  return (end.tv_sec - start.tv_sec) * 1000000000LL + (end.tv_nsec - start.tv_nsec);
}
