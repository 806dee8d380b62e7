// Functions that stop in the middle and go on later, in one thread, each with a stack of its own.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <functional>

namespace sim {

class Fiber {
  public:
    explicit Fiber(std::function<void()> body);
    ~Fiber();
    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    /// Goes on in it, until it stops or has ended.
    void resume();
    /// From within: back to who resumed it.
    void stop();
    bool ended() const noexcept { return ended_; }

  private:
    static void enter(unsigned high, unsigned low);
    void run();

    std::function<void()> body_;
    ucontext_t here_{};
    ucontext_t back_{};
    char* stack_;
    bool ended_ = false;
    void* fake_stack_ = nullptr;  // AddressSanitizer's
    const void* back_stack_ = nullptr;
    std::size_t back_size_ = 0;
};

}  // namespace sim
