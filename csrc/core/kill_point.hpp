// Named points at which a test may kill the process; compiled to nothing in a normal build.
//
// With FASTLOG_KILL_POINTS defined, the environment variable FASTLOG_KILL_AT="name" or "name:3" kills the
// process with SIGKILL when it passes that point for the first (third) time. Two variants let a test inspect
// that very moment: "name:3:stop" stops the process (SIGSTOP) until it is continued; "name:3:hold" does the
// same and then holds the thread there for good while the others go on.
#pragma once

#ifdef FASTLOG_KILL_POINTS
namespace fastlog {
void pass_kill_point(const char* name) noexcept;
}
#define KILL_POINT(name) ::fastlog::pass_kill_point(name)
#else
#define KILL_POINT(name) static_cast<void>(0)
#endif
