// What every call asks: of the process, and of its thread.
//
// With cold caches a call costs the lines that it reads. Found through the linker's table, each of these would
// read one there, and another where it lies; here they share one each.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastlog {

struct ThreadSlot;

/// Written while the library is loaded.
struct alignas(64) HotLine {
    bool use_tsc = false;     // ticks are those of the processor's counter: see clock.hpp
    bool has_crc32c = false;  // the processor has the instruction
    // Python's, which the bindings compare with.
    const void* float_type = nullptr;
    const void* int_type = nullptr;
    void* true_object = nullptr;
    std::ptrdiff_t thread_line = 0;  // from where a thread's own memory is
};
extern constinit HotLine hot_line;

// The most that a library may ask for which is loaded later: with more, glibc refuses to load it ("cannot allocate
// memory in static TLS block"). On ARM that is 32 bytes or fewer; macOS gives what malloc() does.
#if defined(__x86_64__) && defined(__linux__)
inline constexpr std::size_t kThreadLineAlign = 64;
#else
inline constexpr std::size_t kThreadLineAlign = alignof(std::uint64_t);
#endif

/// Of one thread.
struct alignas(kThreadLineAlign) ThreadLine {
    std::uint64_t slot_owner = 0;  // see CallCounters
    ThreadSlot* slot = nullptr;
    std::uint64_t span_begin = 0;  // see CallerTime; 0: none
    std::uint64_t span_elsewhere = 0;
    // The bindings'. Contexts are compared only: a thread has one outside of tasks, once something was set in it.
    void* block_stack = nullptr;
    const void* base_context = nullptr;
    const void* entered_context = nullptr;
};
[[gnu::tls_model("initial-exec")]] extern constinit thread_local ThreadLine thread_line;

/// The calling thread's. With the model of the initial executable the offset is the same in all threads.
inline ThreadLine& this_thread(const HotLine& facts = hot_line) noexcept {
#if defined(__x86_64__) && defined(__linux__)
    auto* const own = static_cast<char*>(__builtin_thread_pointer());
    return *reinterpret_cast<ThreadLine*>(own + facts.thread_line);
#else
    static_cast<void>(facts);
    return thread_line;
#endif
}

}  // namespace fastlog
