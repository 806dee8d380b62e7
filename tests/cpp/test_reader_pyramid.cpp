#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "doctest/doctest.h"
#include "reader/pyramid.hpp"
#include "test_reader_support.hpp"

namespace {

using namespace reader_tests;

using Values = std::vector<std::pair<std::int64_t, double>>;

/// What buckets must be, by sorting.
Buckets expected(const Values& values, int level) {
    std::map<std::int64_t, Values> by_index;
    std::map<std::int64_t, std::int64_t> nonfinite;
    for (const auto& [step, value] : values) {
        Values& finite = by_index[step >> level];
        if (std::isfinite(value)) {
            finite.emplace_back(step, value);
        } else {
            ++nonfinite[step >> level];
        }
    }
    Buckets out;
    for (auto& [index, finite] : by_index) {
        Bucket bucket{.index = index};
        bucket.count = static_cast<std::int64_t>(finite.size());
        bucket.nonfinite = nonfinite[index];
        if (!finite.empty()) {
            std::sort(finite.begin(), finite.end());
            std::tie(bucket.first_step, bucket.first) = finite.front();
            std::tie(bucket.last_step, bucket.last) = finite.back();
            const auto low =
                std::min_element(finite.begin(), finite.end(),
                                 [](const auto& a, const auto& b) { return a.second < b.second; });
            const auto high =
                std::max_element(finite.begin(), finite.end(),
                                 [](const auto& a, const auto& b) { return a.second < b.second; });
            std::tie(bucket.min_step, bucket.min) = *low;
            std::tie(bucket.max_step, bucket.max) = *high;
        }
        out.push_back(bucket);
    }
    return out;
}

bool same(const Buckets& a, const Buckets& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(Bucket)) == 0;
}

std::unique_ptr<Frame> frame_of(const std::vector<std::string>& ranks) {
    std::vector<SourceRows> rows;
    for (const std::string& text : ranks) {
        rows.emplace_back();
        rows.back().rank = static_cast<std::int64_t>(rows.size()) - 1;
        for (auto& chunk : read_text(text).chunks) rows.back().chunks.push_back(std::move(chunk));
    }
    return std::make_unique<Frame>(Stream::kMetrics, std::move(rows));
}

TEST_CASE("a pyramid has the buckets of its values, in whichever order they come") {
    std::mt19937_64 random(5);
    for (const std::size_t limit : {2U, 7U, 64U, 4096U}) {
        Values values;
        for (int i = 0; i < 2000; ++i) {
            const auto step = static_cast<std::int64_t>(random() % 1500) - 700;
            const auto what = random() % 50;
            const double value = what == 0   ? std::nan("")
                                 : what == 1 ? -INFINITY
                                             : static_cast<double>(random() % 100) - 50;
            values.emplace_back(step, value);
        }
        Pyramid pyramid;
        for (const auto& [step, value] : values) pyramid.add(step, value, limit);
        CHECK(pyramid.buckets().size() <= limit);
        CHECK(same(pyramid.buckets(), expected(values, pyramid.level())));
        if (pyramid.level() > 0) CHECK(expected(values, pyramid.level() - 1).size() > limit);
        Pyramid shuffled;
        std::shuffle(values.begin(), values.end(), random);
        for (const auto& [step, value] : values) shuffled.add(step, value, limit);
        CHECK(same(pyramid.buckets(), shuffled.buckets()));
        shuffled.fit(2);
        CHECK(same(shuffled.buckets(), expected(values, shuffled.level())));
    }
}

TEST_CASE("the steps farthest apart end up by their signs") {
    Pyramid pyramid;
    const Values values = {{INT64_MIN, 1}, {-1, 2}, {0, 3}, {INT64_MAX, 4}};
    for (const auto& [step, value] : values) pyramid.add(step, value, 2);
    CHECK(pyramid.level() == Pyramid::kTopLevel);
    CHECK(same(pyramid.buckets(), expected(values, Pyramid::kTopLevel)));
    Pyramid one;
    for (const auto& [step, value] : values) one.add(step, value, 1);
    CHECK(one.buckets().size() == 2);
}

TEST_CASE("a window is drawn with the finest level that has no more buckets than points") {
    std::string texts[2];
    Values values[3];
    for (int rank = 0; rank < 2; ++rank) {
        for (int i = 0; i < 1000; ++i) {
            const int step = i * (rank + 1);
            const double value = i % 97 - rank;
            texts[rank] +=
                line(i, step,
                     "\"a\":" + std::to_string(i % 97 - rank) + ",\"text\":\"x\",\"on\":true" +
                         (i == 500 ? ",\"rare\":1e3" : ""));
            values[rank].emplace_back(step, value);
            values[2].emplace_back(step, value);
        }
    }
    const auto frame = frame_of({texts[0], texts[1]});
    Pyramids pyramids(true, 1 << 20, 256, 16);
    pyramids.add(*frame);
    const std::vector<std::pair<std::vector<std::int64_t>, std::size_t>> choices = {
        {{0}, 0}, {{1}, 1}, {{0, 1}, 2}, {{Pyramids::kAllRanks}, 2}};
    for (const auto& [ranks, which] : choices) {
        for (const auto& [first, last] :
             Values{{INT64_MIN, 9e18}, {100, 899}, {3, 400}, {512, 512}}) {
            for (const std::size_t points : {2U, 10U, 100U, 5000U}) {
                const Drawn drawn =
                    pyramids.draw(ranks, "a", first, static_cast<std::int64_t>(last), points);
                Buckets wanted = expected(values[which], drawn.level);
                std::erase_if(wanted, [&](const Bucket& bucket) {
                    return bucket.index < first >> drawn.level ||
                           bucket.index > static_cast<std::int64_t>(last) >> drawn.level;
                });
                CHECK(same(drawn.buckets, wanted));
                CHECK(wanted.size() <= points);
                CHECK(drawn.first <= first);
                CHECK(drawn.last >= static_cast<std::int64_t>(last));
                CHECK(drawn.is_coarse == (wanted.size() <= points / 2 && drawn.level > 0 &&
                                          drawn.level == (which == 0 ? 2 : 3)));
            }
        }
    }
    CHECK(pyramids.draw({0, 1, 7}, "rare", INT64_MIN, INT64_MAX, 2).buckets.size() == 2);
    const Drawn flags = pyramids.draw({0}, "on", INT64_MIN, INT64_MAX, 1);
    REQUIRE(flags.buckets.size() == 1);
    CHECK(flags.buckets[0].count == 1000);
    CHECK(flags.buckets[0].min == 1.0);
    for (const char* none : {"text", "loss"}) {
        CHECK(pyramids.draw({0}, none, INT64_MIN, INT64_MAX, 2).buckets.empty());
    }
}

TEST_CASE("many metrics share the room that there is") {
    std::string text;
    for (int i = 0; i < 64; ++i) text += line(i, i, "\"a\":1,\"b\":2,\"c\":3,\"d\":4");
    const auto frame = frame_of({text});
    for (const auto& [bytes, most] : {std::pair{64U, 16U}, {16U, 4U}, {0U, 2U}}) {
        Pyramids pyramids(false, bytes * sizeof(Bucket), 64, 2);
        pyramids.add(*frame);
        for (const auto& [key, pyramid] : pyramids.all()) CHECK(pyramid.buckets().size() == most);
    }
}

TEST_CASE("buckets are loaded as they were, and nothing else is") {
    Pyramids pyramids(false, 1 << 20, 8, 8);
    const Buckets buckets = {{.index = -3}, {.index = 5}};
    CHECK(pyramids.load({0, "a"}, 4, buckets));
    CHECK(same(pyramids.all().at({0, "a"}).buckets(), buckets));
    CHECK(pyramids.all().at({0, "a"}).level() == 4);
    CHECK_FALSE(pyramids.load({0, "b"}, 4, {{.index = 5}, {.index = 5}}));
    CHECK_FALSE(pyramids.load({0, "b"}, 64, buckets));
    CHECK_FALSE(pyramids.load({0, "b"}, -1, buckets));
}

}  // namespace
