// Pages whose stores fault are replaced by memory with the same bytes, whoever stores to them meanwhile.
#if defined(__linux__)
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>

#include "core/ring_guard.hpp"
#include "test_support.hpp"

using namespace fastlog;

namespace {

constexpr std::size_t kPages = 64;

// Pages that can be read, while each store to them is a SIGBUS, as on a file system that finds no block for
// them. `refused` is false where this process may not have such.
class Pages {
  public:
    Pages() : bytes_(kPages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE))) {
        base_ = static_cast<std::byte*>(
            ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        REQUIRE(base_ != MAP_FAILED);
        for (std::size_t i = 0; i < words(); ++i) at(i).store(i, std::memory_order_relaxed);
    }
    ~Pages() {
        ::munmap(base_, bytes_);
        if (fd_ >= 0) ::close(fd_);
    }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;

    bool refuse() {
        fd_ = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
        if (fd_ < 0) return false;
        uffdio_api api{};
        api.api = UFFD_API;
        api.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_SIGBUS;
        uffdio_register range{};
        range.range = {reinterpret_cast<std::uintptr_t>(base_), bytes_};
        range.mode = UFFDIO_REGISTER_MODE_WP;
        uffdio_writeprotect protect{};
        protect.range = range.range;
        protect.mode = UFFDIO_WRITEPROTECT_MODE_WP;
        return ::ioctl(fd_, UFFDIO_API, &api) == 0 && ::ioctl(fd_, UFFDIO_REGISTER, &range) == 0 &&
               ::ioctl(fd_, UFFDIO_WRITEPROTECT, &protect) == 0;
    }

    std::byte* base() const { return base_; }
    std::size_t bytes() const { return bytes_; }
    std::size_t words() const { return bytes_ / sizeof(std::uint64_t); }
    std::atomic<std::uint64_t>& at(std::size_t word) {
        return *reinterpret_cast<std::atomic<std::uint64_t>*>(base_ + word * sizeof(std::uint64_t));
    }

  private:
    std::size_t bytes_;
    std::byte* base_;
    int fd_ = -1;
};

}  // namespace

TEST_SUITE("ring guard") {
    TEST_CASE("should keep each store of several threads to pages that fault") {
        Pages pages;
        RingGuard guard;
        guard.watch(pages.base(), pages.bytes());
        if (!pages.refuse()) {
            MESSAGE("no userfaultfd for this process");
            return;
        }
        CHECK_FALSE(guard.broken());
        constexpr std::uint64_t kThreads = 4;
        test::Threads(kThreads, [&](auto) {
            for (std::size_t i = 0; i < pages.words(); ++i) pages.at(i).fetch_add(1'000'000);
        }).join();
        CHECK(guard.broken());
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < pages.words(); ++i) {
            wrong += pages.at(i).load() != i + kThreads * 1'000'000;
        }
        CHECK(wrong == 0);
    }

    TEST_CASE("should leave pages alone that are not, or no longer, of a ring of this process") {
        Pages pages;
        if (!pages.refuse()) return;
        // Whether a child dies that stores to these pages, made anew there: by the signal, or as a
        // sanitizer's handler of it does.
        const auto store_in_child = [&] {
            const pid_t child = ::fork();
            if (child == 0) {
                ::mmap(pages.base(), pages.bytes(), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
                pages.at(0).store(1);
                if (!pages.refuse()) ::_exit(0);
                pages.at(0).store(2);
                ::_exit(0);
            }
            int status = 0;
            ::waitpid(child, &status, 0);
            return WIFSIGNALED(status) || WEXITSTATUS(status) != 0;
        };
        RingGuard guard;
        guard.watch(pages.base(), pages.bytes());
        CHECK(store_in_child());
        guard.forget();
        CHECK(store_in_child());
        CHECK_FALSE(guard.broken());
    }
}
#endif
