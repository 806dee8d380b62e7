#include "core/hot_line.hpp"

namespace fastlog {

constinit HotLine hot_line{};
// Said again: the definition's own model counts in this unit.
[[gnu::tls_model("initial-exec")]] constinit thread_local ThreadLine thread_line{};

#if defined(__x86_64__) && defined(__linux__)
namespace {
const std::ptrdiff_t asked_for_line =
    (hot_line.thread_line =
         reinterpret_cast<char*>(&thread_line) - static_cast<char*>(__builtin_thread_pointer()));
}  // namespace
#endif

}  // namespace fastlog
