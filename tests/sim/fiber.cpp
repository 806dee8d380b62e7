#include "fiber.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace sim {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kStackBytes = std::size_t{1} << 20;
void begin_switch(void** fake, const void* stack, std::size_t size) {
    __sanitizer_start_switch_fiber(fake, stack, size);
}
void end_switch(void* fake, const void** stack, std::size_t* size) {
    __sanitizer_finish_switch_fiber(fake, stack, size);
}
#else
constexpr std::size_t kStackBytes = std::size_t{256} << 10;
void begin_switch(void**, const void*, std::size_t) {}
void end_switch(void*, const void**, std::size_t*) {}
#endif

std::vector<char*>& free_stacks() {
    static std::vector<char*> stacks;
    return stacks;
}

char* take_stack() {
    auto& stacks = free_stacks();
    if (!stacks.empty()) {
        char* const stack = stacks.back();
        stacks.pop_back();
        return stack;
    }
    void* const stack = ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) std::abort();
    return static_cast<char*>(stack);
}

}  // namespace

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)), stack_(take_stack()) {
    ::getcontext(&here_);
    here_.uc_stack.ss_sp = stack_;
    here_.uc_stack.ss_size = kStackBytes;
    here_.uc_link = nullptr;
    const auto self = reinterpret_cast<std::uintptr_t>(this);
    ::makecontext(&here_, reinterpret_cast<void (*)()>(&Fiber::enter), 2,
                  static_cast<unsigned>(self >> 32), static_cast<unsigned>(self));
}

Fiber::~Fiber() { free_stacks().push_back(stack_); }

void Fiber::enter(unsigned high, unsigned low) {
    reinterpret_cast<Fiber*>((static_cast<std::uintptr_t>(high) << 32) | low)->run();
}

void Fiber::run() {
    end_switch(nullptr, &back_stack_, &back_size_);
    body_();
    body_ = nullptr;
    ended_ = true;
    begin_switch(nullptr, back_stack_, back_size_);
    ::swapcontext(&here_, &back_);
    std::abort();
}

void Fiber::resume() {
    void* fake = nullptr;
    begin_switch(&fake, stack_, kStackBytes);
    ::swapcontext(&back_, &here_);
    end_switch(fake, nullptr, nullptr);
}

void Fiber::stop() {
    begin_switch(&fake_stack_, back_stack_, back_size_);
    ::swapcontext(&here_, &back_);
    end_switch(fake_stack_, &back_stack_, &back_size_);
}

}  // namespace sim
