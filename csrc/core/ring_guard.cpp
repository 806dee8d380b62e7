#include "core/ring_guard.hpp"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>

#if defined(__linux__)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#endif

namespace fastlog {
namespace {

std::size_t page_bytes() noexcept {
    static const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return bytes;
}

#if defined(__linux__)
// Copies memory that may not be readable: the kernel reads it, and returns an error instead of a signal.
bool copy_readable(std::byte* to, const std::byte* from, std::size_t size) noexcept {
    const iovec local{to, size};
    const iovec remote{const_cast<std::byte*>(from), size};
    const ssize_t got = ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0);
    if (got == static_cast<ssize_t>(size)) return true;
    if (got >= 0 || (errno != EPERM && errno != ENOSYS)) return false;
    // Some containers forbid that call.
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return false;
    constexpr std::size_t kPart = 4096;  // fits into any pipe
    bool whole = true;
    for (std::size_t at = 0; whole && at < size; at += kPart) {
        whole = ::write(ends[1], from + at, kPart) == static_cast<ssize_t>(kPart) &&
                ::read(ends[0], to + at, kPart) == static_cast<ssize_t>(kPart);
    }
    ::close(ends[0]);
    ::close(ends[1]);
    return whole;
}
#endif

}  // namespace

// The list of guarded mappings and the handler. Never destroyed: a store may fault until the process ends.
// The lock spins: it is held for moments only, and nothing under it touches a ring.
struct BusHandler {
    static inline std::atomic_flag busy = ATOMIC_FLAG_INIT;
    static inline RingGuard* first = nullptr;
    static inline struct sigaction previous{};

    struct Lock {
        Lock() noexcept {
            while (busy.test_and_set(std::memory_order_acquire)) {
            }
        }
        ~Lock() { busy.clear(std::memory_order_release); }
        Lock(const Lock&) = delete;
        Lock& operator=(const Lock&) = delete;
    };

    static void install() noexcept {
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        ::pthread_once(&once, [] {
            struct sigaction ours{};
            ours.sa_sigaction = &handle;
            ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
            ::sigemptyset(&ours.sa_mask);
            page_bytes();
            ::sigaction(SIGBUS, nullptr, &previous);  // before ours can need it
            ::sigaction(SIGBUS, &ours, nullptr);
        });
    }

    static bool repair(std::uintptr_t address) noexcept {
        const Lock lock;
        for (RingGuard* guard = first; guard != nullptr; guard = guard->next_) {
            if (address - guard->base_ < guard->size_) return guard->repair(address);
        }
        return false;
    }

    static void handle(int number, siginfo_t* info, void* context) {
        const int code = errno;
        // Greater than 0: from the kernel, about an address, not sent by a process.
        if (info->si_code <= 0 || !repair(reinterpret_cast<std::uintptr_t>(info->si_addr))) {
            pass_on(number, info, context);
        }
        errno = code;
    }

    static void pass_on(int number, siginfo_t* info, void* context) {
        if ((previous.sa_flags & SA_SIGINFO) != 0) {
            previous.sa_sigaction(number, info, context);
            return;
        }
        const bool sent = info->si_code <= 0;
        if (previous.sa_handler == SIG_IGN && sent) return;
        if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
            previous.sa_handler(number);
            return;
        }
        // As if this handler did not exist: the store faults again, or the signal is sent again.
        struct sigaction plain{};
        plain.sa_handler = SIG_DFL;
        ::sigaction(number, &plain, nullptr);
        if (sent) ::raise(number);
    }
};

void RingGuard::watch(std::byte* base, std::size_t size) {
#if defined(__linux__)
    forget();
    BusHandler::install();
    moved_ = std::make_unique<bool[]>(size / page_bytes() + 1);
    ForkWatched::watch();
    const NoFork no_fork;
    const BusHandler::Lock lock;
    base_ = reinterpret_cast<std::uintptr_t>(base);
    size_ = size;
    next_ = BusHandler::first;
    BusHandler::first = this;
#else
    (void)base;
    (void)size;
#endif
}

void RingGuard::forget() noexcept {
    ForkWatched::forget();
    const NoFork no_fork;
    const BusHandler::Lock lock;
    unlink();
}

void RingGuard::unlink() noexcept {
    for (RingGuard** at = &BusHandler::first; *at != nullptr; at = &(*at)->next_) {
        if (*at != this) continue;
        *at = next_;
        break;
    }
    base_ = size_ = 0;
}

// The ring is not mapped here. A thread of the parent may have been in the handler.
void RingGuard::notice_fork() noexcept {
    BusHandler::busy.clear();
    unlink();
}

// Under the handler's lock: if two threads fault on a page, the second one finds it replaced.
bool RingGuard::repair(std::uintptr_t address) noexcept {
#if defined(__linux__)
    const std::size_t bytes = page_bytes();
    const std::uintptr_t begin = address & ~(bytes - 1);
    bool& moved = moved_[(begin - base_) / bytes];
    if (moved) return true;
    auto* const page = reinterpret_cast<std::byte*>(begin);
    void* const fresh =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED) return false;
    // Other threads' stores to the page also fault and wait for the lock: nothing is lost between the copy
    // and the replacement, which is atomic.
    ::madvise(fresh, bytes, MADV_DONTFORK);
    if (!copy_readable(static_cast<std::byte*>(fresh), page, bytes) ||
        ::mremap(fresh, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, page) == MAP_FAILED) {
        ::munmap(fresh, bytes);
        return false;
    }
    moved = true;
    broken_.store(true, std::memory_order_relaxed);
    return true;
#else
    (void)address;
    return false;
#endif
}

}  // namespace fastlog
