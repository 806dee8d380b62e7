#include "bindings/block_stack.hpp"

#include <pthread.h>

#include <new>

namespace fastlog::bindings {

namespace {

// No NoFork: that may be held while a file is opened, and callers have the GIL. Never destroyed.
pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;

void lock_list() noexcept { ::pthread_mutex_lock(&list_mutex); }
void unlock_list() noexcept { ::pthread_mutex_unlock(&list_mutex); }

// The list of all stacks. A fork waits for it, so that the child finds it whole.
struct ListLocked {
    ListLocked() noexcept {
        static pthread_once_t once = PTHREAD_ONCE_INIT;
        ::pthread_once(&once, [] { ::pthread_atfork(&lock_list, &unlock_list, &unlock_list); });
        lock_list();
    }
    ~ListLocked() { unlock_list(); }
};

}  // namespace

constinit BlockStack* BlockStack::first_ = nullptr;

// Ends a thread's stack with the thread.
struct StackOfThread {
    BlockStack* stack = nullptr;
    ~StackOfThread() {
        this_thread().block_stack = nullptr;
        if (stack != nullptr) stack->end();
    }
};

BlockStack* BlockStack::make() noexcept {
    static thread_local StackOfThread of_thread;
    auto* stack = new (std::nothrow) BlockStack;
    if (stack == nullptr) return nullptr;
    of_thread.stack = stack;
    const ListLocked list;
    stack->next_ = first_;
    if (first_ != nullptr) first_->previous_ = stack;
    first_ = stack;
    return stack;
}

[[gnu::hot]] bool BlockStack::push(const Frame& frame) noexcept {
    const std::lock_guard<Lock> locked(lock_);
    try {
        frames_.push_back(frame);
    } catch (const std::bad_alloc&) {
        return false;
    }
    return true;
}

// Its thread ends, without the GIL: references must not be dropped, but tickets can be.
void BlockStack::end() noexcept {
    const ListLocked list;
    for (Frame& frame : frames_) drop_block(frame.block);
    ended_ = true;
    if (!frames_.empty()) return;
    remove();
    delete this;
}

void BlockStack::remove() noexcept {
    (previous_ != nullptr ? previous_->next_ : first_) = next_;
    if (next_ != nullptr) next_->previous_ = previous_;
}

bool BlockStack::take_any(const Timer* timer, Frame& frame) noexcept {
    const ListLocked list;
    const auto is_its = [timer](const Frame& one) { return one.is_of(timer); };
    BlockStack* from = nullptr;
    do {
        from = nullptr;
        std::uint64_t begin = 0;
        for (BlockStack* stack = first_; stack != nullptr; stack = stack->next_) {
            const std::uint64_t began = stack->look([&](const std::vector<Frame>& frames) {
                const auto found = std::find_if(frames.rbegin(), frames.rend(), is_its);
                return found == frames.rend() ? 0 : found->begin;
            });
            if (began == 0 || (from != nullptr && began >= begin)) continue;
            from = stack;
            begin = began;
        }
        if (from == nullptr) return false;
    } while (!from->take(is_its, frame));  // without a GIL, its thread may be faster
    if (from->ended_ && from->frames_.empty()) {
        from->remove();
        delete from;
    }
    return true;
}

}  // namespace fastlog::bindings
