#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "doctest/doctest.h"
#include "reader/sums.hpp"
#include "test_reader_support.hpp"

namespace {

using namespace reader_tests;

TEST_CASE("a curve keeps its limit, and no value is lost") {
    std::mt19937_64 random(3);
    for (const std::size_t limit : {2U, 9U, 2048U}) {
        Curve straight(limit);
        Curve shuffled(limit);
        Curve halves[2] = {Curve(limit), Curve(limit)};
        std::vector<std::int64_t> steps;
        for (std::int64_t step = -3000; step < 3000; ++step) {
            straight.add(step, static_cast<double>(step) * 2);
            halves[step & 1].add(step, static_cast<double>(step) * 2);
            steps.push_back(step);
        }
        std::shuffle(steps.begin(), steps.end(), random);
        for (const std::int64_t step : steps) shuffled.add(step, static_cast<double>(step) * 2);
        halves[0].add(halves[1]);
        const auto points = straight.points();
        CHECK(points.size() <= limit);
        CHECK(points.size() > limit / 4);
        for (const Curve* other : {&shuffled, &halves[0]}) {
            const auto same = other->points();
            REQUIRE(same.size() == points.size());
            for (std::size_t i = 0; i < points.size(); ++i) {
                CHECK(same[i].first == doctest::Approx(points[i].first));
                CHECK(same[i].second == doctest::Approx(2 * points[i].first));
            }
        }
    }
    Curve extreme(2);
    for (const std::int64_t step : {INT64_MIN, INT64_MAX, std::int64_t{0}})
        extreme.add(step, 1.7e308);
    CHECK(extreme.points().size() <= 2);
    CHECK(extreme.points().back().second == doctest::Approx(1.7e308));
}

TEST_CASE("a sum loses no digits, and does not overflow before its end") {
    ExactSum sum;
    for (int i = 0; i < 1000; ++i) {
        sum.add(1e16);
        sum.add(1.0);
        sum.add(-1e16);
    }
    CHECK(sum.total() == 1000.0);
    ExactSum smallest;
    for (const double number : {1e300, 4.0924359722766166e-307, -1e300}) smallest.add(number);
    CHECK(smallest.total() == 4.0924359722766166e-307);
    CHECK(smallest.mean(2) == 4.0924359722766166e-307 / 2);
    ExactSum large;
    for (int i = 0; i < 3; ++i) large.add(1.7e308);
    CHECK(large.mean(3) == doctest::Approx(1.7e308));
    CHECK(std::isinf(large.total()));
    ExactSum both = large;
    both.add(large);  // what is added may be more than a double holds
    CHECK(both.mean(6) == doctest::Approx(1.7e308));
    sum.add(sum);
    CHECK(sum.total() == 2000.0);
}

TEST_CASE("small parts and many threads sum up to what one part does") {
    std::vector<std::string> texts;
    for (int w = 0; w < 3; ++w) {
        std::string text;
        for (int i = 0; i < 30'000; ++i) {
            const std::string value =
                i == 777 * (w + 1) ? "-5.5" : std::to_string((i * 37) % 1000) + ".25";
            text += line(i, i,
                         "\"loss\":" + value +
                             (i % 100 == 0 ? ",\"note\":\"n" + std::to_string(i) + "\"" : ""));
        }
        texts.push_back(std::move(text));
    }
    // The second start begins anew at step 0, and nothing of the first is left.
    const auto cutoffs = std::make_shared<const Cutoffs>(
        Cutoffs{{"loss", {0, std::nullopt}}, {"note", {0, std::nullopt}}});
    const auto sums = [&](unsigned threads, std::uint64_t part) {
        std::vector<Source> sources;
        std::vector<SourceRows> rows;
        for (int w = 0; w < 3; ++w) {
            sources.push_back({Stream::kMetrics, {in_memory(texts[static_cast<std::size_t>(w)])}});
            rows.push_back({{}, w / 2, w != 0, "", true, w == 0 ? cutoffs : nullptr});
        }
        auto out = std::make_unique<Sums>(Stream::kMetrics, std::vector<std::string>(3));
        ScanLimits limits;
        limits.threads = threads;
        limits.part_bytes = part;
        limits.ahead = 1;
        std::int64_t lines = 0;
        out->read(
            sources, rows, limits, [&lines](Part&& done) { lines += done.chunk->lines; }, [] {},
            [] {});
        CHECK(lines == 90'000);
        return out;
    };
    const auto one = sums(1, UINT64_MAX);
    const auto many = sums(3, 1);
    for (const Sums* it : {one.get(), many.get()}) {
        CHECK(it->left_out().get()[0].second == 30'000);
        CHECK_FALSE(it->sources()[0].first_step.has_value());
        CHECK(*it->sources()[1].last_step == 29'999);
        const MetricSum& loss = it->metrics().at("loss");
        CHECK(loss.count == 60'000);
        CHECK(std::bit_cast<double>(loss.min.bits) == -5.5);
        CHECK(*loss.min_step == 777 * 2);
        CHECK(it->metrics().at("note").last.text == "n29900");
        CHECK(it->metrics().at("note").numbers == 0);
    }
    CHECK(one->metrics().at("loss").sum.total() == many->metrics().at("loss").sum.total());
    CHECK(one->metrics().at("loss").curve.points() == many->metrics().at("loss").curve.points());
}

TEST_CASE("what a writer took back is not summed up, though it says so only later") {
    std::string text;
    for (int i = 0; i < 10; ++i) text += line(i, i, R"("loss":)" + std::to_string(i));
    text += R"({"timestamp":"2026-01-30T14:32:15.5Z","seq":10,"rewind":4})"
            "\n";
    text += line(11, 4, R"("loss":100)");
    for (const bool counts : {true, false}) {
        std::vector<SourceRows> rows(1);
        rows[0].counts = counts;
        Sums sums(Stream::kMetrics, {""});
        int anew = 0;
        std::int64_t lines = 0;
        sums.read(
            {{Stream::kMetrics, {in_memory(text)}}}, rows, {},
            [&](Part&& part) { lines += part.chunk->lines; },
            [&] {
                ++anew;
                lines = 0;
            },
            [] {});
        CHECK(anew == counts);
        CHECK(lines == 12);
        CHECK(sums.metrics().at("loss").count == (counts ? 5 : 11));
        CHECK(sums.left_out().get().size() == counts);
    }
}

}  // namespace
