// What a forked child is told of, and what it lets go of.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <optional>
#include <thread>

#include "core/fork_watch.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

constexpr int kCreate = O_RDWR | O_CREAT | O_CLOEXEC;

class Noted final : ForkWatched {
  public:
    Noted() { watch(); }
    ~Noted() override { forget(); }
    int forks = 0;

  private:
    void notice_fork() noexcept override { ++forks; }
};

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

}  // namespace

TEST_SUITE("fork watch") {
    TEST_CASE("should tell what is watched, in the child alone, and once") {
        Noted first;
        std::optional<Noted> gone(std::in_place);
        Noted last;
        gone.reset();
        CHECK(in_forked_child([&] {
                  if (first.forks != 1 || last.forks != 1) return 1;
                  return in_forked_child([&] { return first.forks == 1 ? 0 : 1; });
              }) == 0);
        CHECK(first.forks == 0);
        CHECK(last.forks == 0);
    }

    TEST_CASE("should close in the child what a lock is on, so that the lock ends with its owner") {
        TempDir dir;
        const std::string path = dir / "file";
        std::optional<LockDescriptor> ours(std::in_place);
        REQUIRE(ours->open(AT_FDCWD, path, kCreate, 0600) >= 0);
        REQUIRE(::flock(ours->get(), LOCK_EX | LOCK_NB) == 0);
        CHECK(in_forked_child([&, fd = ours->get()] {
                  if (ours->get() != -1 || is_open(fd)) return 1;
                  const LockDescriptor other(posix_files(), path, O_RDWR);
                  return ::flock(other.get(), LOCK_EX | LOCK_NB) == 0 ? 2 : 0;
              }) == 0);
        const LockDescriptor other(posix_files(), path, O_RDWR);
        CHECK(::flock(other.get(), LOCK_EX | LOCK_NB) != 0);
        ours.reset();
        CHECK(::flock(other.get(), LOCK_EX | LOCK_NB) == 0);
        CHECK(LockDescriptor(posix_files(), dir / "none", O_RDWR).get() == -1);
    }

    TEST_CASE("a number that was closed below a lock descriptor is left to its next user") {
        TempDir dir;
        LockDescriptor ours;
        REQUIRE(ours.open(AT_FDCWD, dir / "ours", kCreate, 0600) >= 0);
        CHECK(ours.good());
        ::close(ours.get());
        const int theirs = ::open((dir / "theirs").c_str(), kCreate, 0600);
        REQUIRE(theirs == ours.get());
        CHECK_FALSE(ours.good());
        ours.close();
        CHECK(is_open(theirs));
        ::close(theirs);
    }

    TEST_CASE("should leave a child no descriptor, at whatever moment of another thread it forks") {
        TempDir dir;
        const std::string path = dir / "file";
        std::atomic<bool> over{false};
        std::atomic<int> number{-1};
        std::thread thread([&] {
            while (!over.load()) {
                LockDescriptor ours;
                number.store(ours.open(AT_FDCWD, path, kCreate, 0600));
            }
        });
        while (number.load() < 0) std::this_thread::yield();
        int wrong = 0;
        for (int i = 0; i < scaled(200, 20); ++i) {
            wrong += in_forked_child([&] { return is_open(number.load()) ? 1 : 0; });
        }
        over.store(true);
        thread.join();
        CHECK(wrong == 0);
    }
}
