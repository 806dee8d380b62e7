// The free list of tickets: nobody else has what a thread has popped, and nothing is lost.
#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "device/ticket.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

/// An atomic in which others have their way between what a thread has read and its exchange.
template <class T>
struct Interrupted {
    Interrupted(T first) : value(first) {}
    T load(std::memory_order order) const { return value.load(order); }
    bool compare_exchange_weak(T& expected, T desired, std::memory_order, std::memory_order) {
        if (others) std::exchange(others, nullptr)();
        return value.compare_exchange_strong(expected, desired);
    }
    std::atomic<T> value;
    static inline std::function<void()> others;
};

template <class Stack>
std::vector<std::uint16_t> drained(Stack& stack, Ticket* tickets) {
    std::vector<std::uint16_t> all;
    for (std::uint16_t n; (n = stack.pop(tickets)) != kNoTicket;) all.push_back(n);
    return all;
}

}  // namespace

TEST_SUITE("ticket stack") {
    TEST_CASE("should have nothing at first, and give the last one back first") {
        const auto tickets = std::make_unique<Ticket[]>(8);
        TicketStack stack;
        CHECK(stack.pop(tickets.get()) == kNoTicket);
        for (const int n : {3, 0, 7}) stack.push(tickets.get(), static_cast<std::uint16_t>(n));
        CHECK(drained(stack, tickets.get()) == std::vector<std::uint16_t>{7, 0, 3});
        CHECK(stack.pop(tickets.get()) == kNoTicket);
        stack.push(tickets.get(), 5);
        CHECK(drained(stack, tickets.get()) == std::vector<std::uint16_t>{5});
    }

    TEST_CASE("should hold every number that a ticket may have") {
        constexpr std::uint32_t kAll = kNoTicket;
        const auto tickets = std::make_unique<Ticket[]>(kAll);
        TicketStack stack;
        for (std::uint32_t n = 0; n < kAll; ++n) {
            stack.push(tickets.get(), static_cast<std::uint16_t>(n));
        }
        const auto all = drained(stack, tickets.get());
        REQUIRE(all.size() == kAll);
        CHECK(all.front() == kAll - 1);
        CHECK(all.back() == 0);
    }

    TEST_CASE("should not take a ticket that came back for the one that it has seen") {
        const auto tickets = std::make_unique<Ticket[]>(3);
        BasicTicketStack<Interrupted> stack;
        for (const int n : {2, 1, 0}) stack.push(tickets.get(), static_cast<std::uint16_t>(n));
        // Another thread takes 0 and 1 and brings 0 back; 1 is its own.
        Interrupted<std::uint64_t>::others = [&] {
            CHECK(stack.pop(tickets.get()) == 0);
            CHECK(stack.pop(tickets.get()) == 1);
            stack.push(tickets.get(), 0);
        };
        CHECK(stack.pop(tickets.get()) == 0);
        CHECK(drained(stack, tickets.get()) == std::vector<std::uint16_t>{2});
    }

    TEST_CASE("should lose no ticket when another is pushed at the same moment") {
        const auto tickets = std::make_unique<Ticket[]>(3);
        BasicTicketStack<Interrupted> stack;
        stack.push(tickets.get(), 0);
        Interrupted<std::uint64_t>::others = [&] { stack.push(tickets.get(), 1); };
        stack.push(tickets.get(), 2);
        CHECK(drained(stack, tickets.get()) == std::vector<std::uint16_t>{2, 1, 0});
        CHECK_FALSE(Interrupted<std::uint64_t>::others);
    }

    // Few tickets and many threads that take several and give them back in another order. The plain fields are written without a lock: ThreadSanitizer sees a ticket that
    // is handed over without an order.
    TEST_CASE("should give a ticket to one thread at a time, however often it comes back") {
        constexpr std::uint16_t kTickets = 6;
        constexpr int kThreads = 4;
        const auto tickets = std::make_unique<Ticket[]>(kTickets);
        std::atomic<int> owners[kTickets]{};
        TicketStack stack;
        for (std::uint16_t n = 0; n < kTickets; ++n) stack.push(tickets.get(), n);
        std::atomic<int> faults{0};
        Threads(kThreads, [&](int t) {
            std::mt19937 random(static_cast<unsigned>(t));
            for (int i = 0; i < scaled(200'000, 20'000); ++i) {
                std::uint16_t held[3];
                std::size_t count = 0;
                const std::size_t wanted = 1 + random() % 3;
                while (count < wanted) {
                    const std::uint16_t n = stack.pop(tickets.get());
                    if (n == kNoTicket) break;
                    if (owners[n].exchange(1, std::memory_order_relaxed) != 0) faults = 1;
                    tickets[n].made_ns = t;
                    held[count++] = n;
                }
                if (random() % 2 == 0) std::reverse(held, held + count);
                for (std::size_t k = 0; k < count; ++k) {
                    if (tickets[held[k]].made_ns != t) faults = 2;
                    owners[held[k]].store(0, std::memory_order_relaxed);
                    stack.push(tickets.get(), held[k]);
                }
            }
        }).join();
        CHECK(faults.load() == 0);
        auto left = drained(stack, tickets.get());
        std::sort(left.begin(), left.end());
        CHECK(left == std::vector<std::uint16_t>{0, 1, 2, 3, 4, 5});
    }
}
