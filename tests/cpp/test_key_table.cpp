// Interned key sets: same keys, same id; readable from the memory they lie in; bounded.
#include <algorithm>
#include <atomic>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/key_table.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

using Keys = std::vector<std::string_view>;

struct TestTable {
    explicit TestTable(std::size_t size = 1 << 20)
        : bytes(size), arena(size), table(arena.get(), size) {}
    std::size_t bytes;
    AlignedBytes arena;
    KeyTable table;
};

std::vector<std::string> numbered(std::size_t count) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < count; ++i) names.push_back("key_" + std::to_string(i));
    return names;
}

}  // namespace

TEST_SUITE("key_table") {
    TEST_CASE("should give equal key sets one id and different ones different ids") {
        TestTable t;
        CHECK(t.table.intern({"loss", "lr"}) == 0);
        CHECK(t.table.intern({"loss", "lr"}) == 0);
        CHECK(t.table.intern({"lr", "loss"}) == 1);  // order is part of the set
        CHECK(t.table.intern({"loss"}) == 2);
        CHECK(t.table.intern({}) == 3);
        CHECK(t.table.intern({""}) == 4);
        CHECK(t.table.intern({"", ""}) == 5);
        CHECK(t.table.intern({"loss", "lr"}) == 0);
        CHECK(t.table.size() == 6);
    }

    TEST_CASE("should tell apart keys that only differ in where one ends") {
        TestTable t;
        const auto zero = std::string_view("a\0b", 3);
        CHECK(t.table.intern({"ab", "c"}) == 0);
        CHECK(t.table.intern({"a", "bc"}) == 1);
        CHECK(t.table.intern({"abc"}) == 2);
        CHECK(t.table.intern({zero}) == 3);
        CHECK(t.table.intern({"a", "b"}) == 4);
        CHECK(t.table.intern({std::string_view("a\0", 2)}) == 5);
        CHECK(t.table.intern({"a"}) == 6);  // padding is not part of a key
    }

    TEST_CASE("should be read in order of the ids, as far as published") {
        TestTable t;
        KeyTable::Reader reader(t.arena.get(), t.bytes);
        Keys keys;
        CHECK_FALSE(reader.next(keys));
        const std::string quoted = "a \"quoted\"\n\tkey";
        t.table.intern({"loss", quoted});
        t.table.intern({});
        REQUIRE(reader.next(keys));
        CHECK(keys == Keys{"loss", quoted});
        REQUIRE(reader.next(keys));
        CHECK(keys.empty());
        CHECK_FALSE(reader.next(keys));
        t.table.intern({"later"});
        REQUIRE(reader.next(keys));
        CHECK(keys == Keys{"later"});
        CHECK_FALSE(reader.next(keys));
    }

    TEST_CASE("should say when its memory is full, and keep what it has") {
        TestTable t(272);
        const std::string long_key(100, 'x');
        CHECK(t.table.intern({long_key}) == 0);       // 120 bytes of 264
        CHECK(t.table.intern({long_key, "b"}) == 1);  // 128 more
        CHECK(t.table.intern({"too much"}) == KeyTable::kNone);
        CHECK(t.table.intern({long_key}) == 0);
        CHECK(t.table.intern({}) == 2);  // 16 bytes still fit
        CHECK(t.table.intern({"c"}) == KeyTable::kNone);
        CHECK(t.table.size() == 3);
        CHECK(t.table.intern({std::string(10'000, 'y')}) == KeyTable::kNone);
        KeyTable::Reader reader(t.arena.get(), t.bytes);
        Keys keys;
        REQUIRE(reader.next(keys));
        REQUIRE(reader.next(keys));
        REQUIRE(reader.next(keys));
        CHECK_FALSE(reader.next(keys));
    }

    TEST_CASE("should leave keys to their records that would make long lines of short ones") {
        TestTable t;
        const std::string longest(KeyTable::kMaxKeyText - 2, 'k');  // and two quotes
        CHECK(t.table.intern({longest}) == 0);
        CHECK(t.table.intern({longest + "k"}) == KeyTable::kNone);
        CHECK(t.table.intern({"a", longest + "k"}) == KeyTable::kNone);
        const std::string controls((KeyTable::kMaxKeyText - 2) / 6, '\1');  // \u0001
        CHECK(t.table.intern({controls}) == 1);
        CHECK(t.table.intern({controls + "\1"}) == KeyTable::kNone);
        CHECK(t.table.intern({longest, controls}) == 2);
        CHECK(t.table.size() == 3);
    }

    TEST_CASE("should fill its memory to the last byte and not beyond") {
        const std::size_t room = 8 + 3 * 24;  // the published count, three sets of one short key
        AlignedBytes arena(room + 64);
        std::memset(arena.get() + room, 0x5A, 64);
        KeyTable table(arena.get(), room);
        CHECK(table.intern({"abcd"}) == 0);
        CHECK(table.intern({"efgh"}) == 1);
        CHECK(table.intern({"ijkl"}) == 2);
        CHECK(table.intern({""}) == KeyTable::kNone);
        for (std::size_t i = 0; i < 64; ++i) REQUIRE(arena.get()[room + i] == std::byte{0x5A});
    }

    TEST_CASE("should agree among threads while somebody reads") {
        TestTable t;
        constexpr std::size_t kThreads = 4;
        constexpr std::size_t kSets = 500;
        const auto names = numbered(kSets);
        std::vector<std::vector<std::uint32_t>> ids(kThreads, std::vector<std::uint32_t>(kSets));
        Threads threads(kThreads, [&](std::size_t n) {
            std::vector<std::size_t> order(kSets);
            for (std::size_t i = 0; i < kSets; ++i) order[i] = i;
            std::shuffle(order.begin(), order.end(), std::mt19937(static_cast<unsigned>(n)));
            for (std::size_t i : order) ids[n][i] = t.table.intern({names[i], "lr"});
        });
        // Reads while they intern: each set must be whole when it can be seen.
        KeyTable::Reader reader(t.arena.get(), t.bytes);
        std::vector<std::string> read;
        const bool all_read = eventually([&] {
            Keys keys;
            while (reader.next(keys)) {
                read.push_back(keys.size() == 2 && keys[1] == "lr" ? std::string(keys[0]) : "torn");
            }
            return read.size() >= kSets;
        });
        threads.join();
        REQUIRE(all_read);
        CHECK(read.size() == kSets);
        for (std::size_t i = 0; i < kSets; ++i) {
            for (std::size_t n = 0; n < kThreads; ++n) {
                REQUIRE(ids[n][i] == ids[0][i]);
                REQUIRE(read.at(ids[n][i]) == names[i]);
            }
        }
    }
}
