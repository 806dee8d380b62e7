// JSON text of any number, and timestamps. Texts and the rest are in tests/unit/test_ring_image.py.
#include <time.h>

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>

#include "core/json_writer.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

std::string text_of(double value) {
    std::string out;
    json::append_double(out, value);
    return out;
}

std::uint64_t bits_of(double value) {
    std::uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

double double_of(std::uint64_t bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// The slow and obvious way to the fewest digits that read back: try them all.
std::string shortest_scientific(double value) {
    char buffer[64];
    for (int digits = 1;; ++digits) {
        std::snprintf(buffer, sizeof buffer, "%.*e", digits - 1, value);
        if (digits == 17 || std::strtod(buffer, nullptr) == value) return buffer;
    }
}

void check_round_trip(double value) {
    const std::string text = text_of(value);
    if (std::isfinite(value)) {
        const double back = std::strtod(text.c_str(), nullptr);
        if (bits_of(back) != bits_of(value)) FAIL_CHECK(text << " is not " << bits_of(value));
        if (text.find_first_of(".e") == std::string::npos) FAIL_CHECK(text << " reads as an int");
    } else if (text != "null") {
        FAIL_CHECK(text);
    }
}

std::string expected_timestamp(std::int64_t wall_ns) {
    const std::int64_t ns = ((wall_ns % 1'000'000'000) + 1'000'000'000) % 1'000'000'000;
    const auto second = static_cast<time_t>((wall_ns - ns) / 1'000'000'000);
    tm date{};
    REQUIRE(::gmtime_r(&second, &date) != nullptr);
    char text[80];
    std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", date.tm_year + 1900,
                  date.tm_mon + 1, date.tm_mday, date.tm_hour, date.tm_min, date.tm_sec,
                  static_cast<int>(ns / 1000));
    return text;
}

}  // namespace

TEST_SUITE("json_writer") {
    TEST_CASE("should read back every double bit by bit") {
        std::mt19937_64 random(20260130);
        for (int i = 0; i < scaled(1'000'000, 100'000); ++i) check_round_trip(double_of(random()));
    }

    TEST_CASE("should read back all kinds of subnormals and powers of two") {
        std::mt19937_64 random(7);
        for (int i = 0; i < scaled(100'000, 10'000); ++i) {
            check_round_trip(double_of(random() & 0x800FFFFFFFFFFFFFu));
        }
        for (int e = -1074; e < 1024; ++e) {
            check_round_trip(std::ldexp(1.0, e));
            check_round_trip(std::nextafter(std::ldexp(1.0, e), 0.0));
            check_round_trip(-std::nextafter(std::ldexp(1.0, e), HUGE_VAL));
        }
        for (int e = -323; e < 309; ++e) {
            check_round_trip(std::strtod(("1e" + std::to_string(e)).c_str(), nullptr));
        }
    }

    TEST_CASE("should never be longer than the fewest digits that read back, with an exponent") {
        std::mt19937_64 random(42);
        std::uniform_real_distribution<double> loss(0.0, 10.0);
        for (int i = 0; i < scaled(20'000, 2'000); ++i) {
            const double any = double_of(random());
            for (const double value : {std::isfinite(any) ? any : 1.5, loss(random),
                                       std::round(loss(random) * 1000) / 1000}) {
                const std::string text = text_of(value);
                const std::string other = shortest_scientific(value);
                if (text.size() > other.size() + 2) FAIL_CHECK(text << " or " << other);  // ".0"
            }
        }
    }

    TEST_CASE("should write known instants") {
        json::TimestampWriter writer;
        const auto text = [&](std::int64_t ns) {
            std::string out;
            writer.append(out, ns);
            return out;
        };
        CHECK(text(0) == "1970-01-01T00:00:00.000000Z");
        CHECK(text(1) == "1970-01-01T00:00:00.000000Z");
        CHECK(text(999'999'999) == "1970-01-01T00:00:00.999999Z");
        CHECK(text(-1) == "1969-12-31T23:59:59.999999Z");
        CHECK(text(-1'000'000'000) == "1969-12-31T23:59:59.000000Z");
        CHECK(text(-1'000'000'001) == "1969-12-31T23:59:58.999999Z");
        CHECK(text(1'769'783'535'123'456'789) == "2026-01-30T14:32:15.123456Z");
        CHECK(text(951'782'400'000'000'000) == "2000-02-29T00:00:00.000000Z");
        CHECK(text(INT64_MAX) == "2262-04-11T23:47:16.854775Z");
        CHECK(text(INT64_MIN) == "1677-09-21T00:12:43.145224Z");
    }

    TEST_CASE("should write every date as gmtime_r does") {
        json::TimestampWriter writer;
        std::string out;
        const auto check = [&](std::int64_t ns) {
            out.clear();
            writer.append(out, ns);
            if (out != expected_timestamp(ns)) FAIL_CHECK(out << " is " << expected_timestamp(ns));
        };
        // The first and the last moment of each day that int64 nanoseconds reach.
        constexpr std::int64_t kDay = 86'400'000'000'000;
        for (std::int64_t day = INT64_MIN / kDay; day < INT64_MAX / kDay; day += scaled(1, 17)) {
            check(day * kDay);
            check(day * kDay + kDay - 1);
        }
        std::mt19937_64 random(1);
        for (int i = 0; i < scaled(200'000, 20'000); ++i) {
            check(static_cast<std::int64_t>(random()));
        }
    }

    TEST_CASE("should not let one writer's last second leak into the next") {
        // Back and forth over second, minute and day, as stepped clocks go.
        json::TimestampWriter writer;
        std::mt19937_64 random(2);
        std::int64_t at = 1'769'783'535'000'000'000;
        std::string out;
        for (int i = 0; i < scaled(50'000, 5'000); ++i) {
            at += static_cast<std::int64_t>(random() % 4'000'000'000) - 2'000'000'000;
            out.clear();
            writer.append(out, at);
            if (out != expected_timestamp(at)) FAIL_CHECK(out);
        }
    }
}
