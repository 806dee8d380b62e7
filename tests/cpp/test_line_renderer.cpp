// Records to lines: golden lines, the order of members, and a strict reader over anything else.
#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/line_renderer.hpp"
#include "test_support.hpp"

using namespace fastlog;
using namespace fastlog::test;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

/// A record as it lies in the ring.
class Record {
  public:
    Record(RecordKind kind, Stream stream, std::string_view payload, std::uint64_t ticks)
        : bytes_(record_size(payload.size())) {
        RecordHeader header{};
        header.length = static_cast<std::uint32_t>(payload.size());
        header.ticks = ticks;
        header.thread_id = 4711;
        header.kind = kind;
        header.stream = stream;
        std::memcpy(bytes_.get(), &header, sizeof header);
        // A view of nothing may be null, which memcpy must not be given.
        if (!payload.empty()) {
            std::memcpy(bytes_.get() + sizeof header, payload.data(), payload.size());
        }
    }
    const RecordHeader& header() const {
        return *reinterpret_cast<const RecordHeader*>(bytes_.get());
    }

  private:
    AlignedBytes bytes_;
};

struct Rendering {
    AlignedBytes arena{1 << 20};
    KeyTable table{arena.get(), 1 << 20};
    LineRenderer renderer{arena.get(), 1 << 20};
    std::uint64_t ticks = now_ticks();

    std::string line(RecordKind kind, std::string_view payload, std::uint64_t seq = 41) {
        const Record record(kind, Stream::metrics, payload, ticks);
        std::string out;
        renderer.render(record.header(), seq, out);
        return out;
    }
    std::string metrics(const MetricsBuilder& builder) {
        return line(RecordKind::metrics, builder.payload());
    }
    /// How each line of `ticks` begins.
    std::string begin(std::uint64_t seq = 41) {
        json::TimestampWriter writer;
        std::string out = "{\"timestamp\":\"";
        writer.append(out, renderer.clock().wall_ns(ticks));
        return out + "\",\"seq\":" + std::to_string(seq) + ",";
    }
};

std::string timing_payload(const TimingPayload& timing, std::string_view error = {}) {
    TimingPayload head = timing;
    head.error_length = static_cast<std::uint32_t>(error.size());
    std::string out(sizeof head, '\0');
    std::memcpy(out.data(), &head, sizeof head);
    return out.append(error);
}

std::uint64_t ticks_of(const LineRenderer& renderer, double seconds) {
    return static_cast<std::uint64_t>(seconds * 1e9 /
                                      (renderer.clock().duration_ns(1'000'000) / 1e6));
}

}  // namespace

TEST_SUITE("line_renderer") {
    TEST_CASE("should give rendered lines lower numbers, and change nothing else of them") {
        const auto lines = [](std::uint64_t first) {
            std::string all;
            for (std::uint64_t n = first; n < first + 30; ++n) {
                all +=
                    "{\"timestamp\":\"2026-01-30T14:32:15.123456Z\",\"seq\":" + std::to_string(n) +
                    ",\"message\":\"\\\"seq\\\":95, }" + std::string((n - first) % 7, 'x') +
                    "\"}\n";
            }
            return all;
        };
        for (const std::uint64_t by : {0, 1, 90, 95}) {
            std::string all = lines(95);
            LineRenderer::renumber(all, by);
            CHECK(all == lines(95 - by));
        }
        std::string none;
        LineRenderer::renumber(none, 5);
        CHECK(none.empty());
    }

    TEST_CASE("should write a metrics line with values of every type, in the order recorded") {
        Rendering r;
        const auto id = r.table.intern({"loss", "lr", "note", "ok", "bad", "n", "z"});
        CHECK(r.metrics(MetricsBuilder(100, id)
                            .real(2.456)
                            .real(1e-5)
                            .string("a \"b\"\n\xE2\x82\xAC")
                            .boolean(true)
                            .boolean(false)
                            .integer(INT64_MIN)
                            .null()) ==
              r.begin() + R"("step":100,"metrics":{"loss":2.456,"lr":1e-05,"note":"a \"b\"\n)" +
                  "\xE2\x82\xAC" +
                  R"(","ok":true,"bad":false,"n":-9223372036854775808,"z":null}})" + "\n");
    }

    TEST_CASE("should write steps up to the limits of 64 bits and a record without metrics") {
        Rendering r;
        const auto id = r.table.intern({});
        CHECK(r.metrics(MetricsBuilder(INT64_MAX, id)) ==
              r.begin() + R"("step":9223372036854775807,"metrics":{}})" + "\n");
        CHECK(r.metrics(MetricsBuilder(INT64_MIN, id)) ==
              r.begin() + R"("step":-9223372036854775808,"metrics":{}})" + "\n");
    }

    TEST_CASE("should make epoch a field of its own, wherever it stood") {
        Rendering r;
        const std::string expected =
            r.begin() + R"("step":7,"epoch":2,"metrics":{"a":1,"b":3}})" + "\n";
        CHECK(r.metrics(MetricsBuilder(7, r.table.intern({"epoch", "a", "b"}))
                            .integer(2)
                            .integer(1)
                            .integer(3)) == expected);
        CHECK(r.metrics(MetricsBuilder(7, r.table.intern({"a", "epoch", "b"}))
                            .integer(1)
                            .integer(2)
                            .integer(3)) == expected);
        CHECK(r.metrics(MetricsBuilder(7, r.table.intern({"a", "b", "epoch"}))
                            .integer(1)
                            .integer(3)
                            .integer(2)) == expected);
    }

    TEST_CASE("should write a fractional epoch and leave out one that is null") {
        Rendering r;
        const auto id = r.table.intern({"epoch", "a"});
        CHECK(r.metrics(MetricsBuilder(7, id).real(1.5).integer(1)) ==
              r.begin() + R"("step":7,"epoch":1.5,"metrics":{"a":1}})" + "\n");
        CHECK(r.metrics(MetricsBuilder(7, id).null().integer(1)) ==
              r.begin() + R"("step":7,"metrics":{"a":1}})" + "\n");
    }

    TEST_CASE("should write what is not finite as null and name it") {
        Rendering r;
        const auto id = r.table.intern({"a", "b\"", "c", "d"});
        CHECK(r.metrics(MetricsBuilder(1, id).real(kNan).real(kInf).real(0.5).real(-kInf)) ==
              r.begin() + R"("step":1,"metrics":{"a":null,"b\"":null,"c":0.5,"d":null},)" +
                  R"("nonfinite":{"a":"nan","b\"":"inf","d":"-inf"}})" + "\n");
        // Nothing of it is left for the next line.
        CHECK(r.metrics(MetricsBuilder(2, id).real(1).real(2).real(3).real(4)) ==
              r.begin() + R"("step":2,"metrics":{"a":1.0,"b\"":2.0,"c":3.0,"d":4.0}})" + "\n");
        const auto epoch = r.table.intern({"epoch"});
        CHECK(r.metrics(MetricsBuilder(1, epoch).real(kNan)) ==
              r.begin() + R"("step":1,"epoch":null,"metrics":{},"nonfinite":{"epoch":"nan"}})" +
                  "\n");
    }

    TEST_CASE("should escape keys and keep empty ones") {
        Rendering r;
        const auto id = r.table.intern({"", "a\"\\\n", "\x01",
                                        "gr\xC3\xBC\xC3\x9F"
                                        "e"});
        CHECK(r.metrics(MetricsBuilder(1, id).integer(1).integer(2).integer(3).integer(4)) ==
              r.begin() + R"("step":1,"metrics":{"":1,"a\"\\\n":2,"\u0001":3,"gr)" +
                  "\xC3\xBC\xC3\x9F" + R"(e":4}})" + "\n");
    }

    TEST_CASE("should find key sets that were interned in any order, also long after") {
        Rendering r;
        const auto a = r.table.intern({"a"});
        const auto b = r.table.intern({"b"});
        const auto only_key = [&](std::uint32_t id) {
            const auto line = split_lines(r.metrics(MetricsBuilder(1, id).integer(1)))[0];
            return parse(line)["metrics"].keys().at(0);
        };
        CHECK(only_key(b) == "b");
        const auto c = r.table.intern({"c"});
        CHECK(only_key(a) == "a");
        CHECK(only_key(c) == "c");
        CHECK(only_key(b) == "b");
    }

    TEST_CASE("should write a timing with everything that it may hold") {
        Rendering r;
        TimingPayload timing{};
        timing.step = -5;
        timing.duration_ticks = ticks_of(r.renderer, 0.0234);
        timing.name = r.table.intern({"for\"ward"});
        timing.parent = r.table.intern({"step"});
        timing.depth = 65535;
        timing.flags = TimingPayload::kHasStep | TimingPayload::kHasParent;
        const Json line =
            parse(split_lines(r.line(RecordKind::timing, timing_payload(timing, "ValueError")))[0]);
        CHECK(line.keys() == std::vector<std::string>{"timestamp", "seq", "name", "duration_s",
                                                      "step", "depth", "parent", "thread",
                                                      "error"});
        CHECK(line["name"].text == "for\"ward");
        CHECK(std::abs(std::stod(line["duration_s"].text) - 0.0234) < 1e-8);
        CHECK(line["step"].text == "-5");
        CHECK(line["depth"].text == "65535");
        CHECK(line["parent"].text == "step");
        CHECK(line["thread"].text == "4711");
        CHECK(line["error"].text == "ValueError");
    }

    TEST_CASE("should leave out of a timing what it does not have") {
        Rendering r;
        TimingPayload timing{};
        timing.name = r.table.intern({"load"});
        timing.step = 99;  // without their flags these mean nothing
        timing.parent = 99;
        CHECK(r.line(RecordKind::timing, timing_payload(timing)) ==
              r.begin() + R"("name":"load","duration_s":0.0,"depth":0,"thread":4711})" + "\n");
    }

    TEST_CASE("should write durations in whole nanoseconds") {
        Rendering r;
        TimingPayload timing{};
        timing.name = r.table.intern({"x"});
        std::mt19937_64 random(3);
        for (int i = 0; i < 1000; ++i) {
            timing.duration_ticks = random() >> (random() % 40 + 20);
            const Json line =
                parse(split_lines(r.line(RecordKind::timing, timing_payload(timing)))[0]);
            const double seconds = std::stod(line["duration_s"].text);
            const double ns = r.renderer.clock().duration_ns(timing.duration_ticks);
            REQUIRE(seconds == std::round(ns) / 1e9);
        }
    }

    TEST_CASE("should pass a fragment through between braces") {
        Rendering r;
        CHECK(r.line(RecordKind::fragment, R"("level":"INFO","message":"x","context":{})", 0) ==
              r.begin(0) + R"("level":"INFO","message":"x","context":{}})" + "\n");
    }

    TEST_CASE("should say how many records were dropped") {
        Rendering r;
        std::uint64_t count = 17;
        CHECK(r.line(RecordKind::drops, {reinterpret_cast<const char*>(&count), sizeof count}) ==
              r.begin() + "\"dropped\":17}\n");
        std::string out;
        r.renderer.render_drops(UINT64_MAX, r.ticks, 3, out);
        CHECK(out == r.begin(3) + "\"dropped\":18446744073709551615}\n");
    }

    TEST_CASE("should append and number as it is told") {
        Rendering r;
        const Record record(RecordKind::fragment, Stream::log, R"("message":"x")", r.ticks);
        std::string out;
        for (std::uint64_t seq : {std::uint64_t{0}, std::uint64_t{1}, UINT64_MAX}) {
            r.renderer.render(record.header(), seq, out);
        }
        const auto lines = split_lines(out);
        REQUIRE(lines.size() == 3);
        CHECK(parse(lines[0])["seq"].text == "0");
        CHECK(parse(lines[1])["seq"].text == "1");
        CHECK(parse(lines[2])["seq"].text == "18446744073709551615");
    }

    TEST_CASE("should refuse a key set that was never published") {
        Rendering r;
        CHECK_THROWS_AS(r.metrics(MetricsBuilder(1, 0)), std::out_of_range);
    }

    TEST_CASE("should write the same line when the caller has to render it") {
        // The way of records whose keys do not fit the key table.
        Rendering r;
        for (const bool epoch : {false, true}) {
            const std::vector<std::string_view> keys = {"a\"", epoch ? "epoch" : "x", "", "s"};
            MetricsBuilder builder(12, r.table.intern(keys));
            builder.real(kNan).integer(4).real(-kInf).string("text\t");
            const std::string payload = builder.payload();
            const std::string members =
                render_metrics_fragment(reinterpret_cast<const std::byte*>(payload.data()), keys);
            CHECK(r.line(RecordKind::fragment, members) == r.metrics(builder));
        }
        TimingPayload timing{};
        timing.step = 3;
        timing.duration_ticks = 123'456'789;
        timing.name = r.table.intern({"na\"me"});
        timing.parent = r.table.intern({"par\\ent"});
        timing.depth = 2;
        for (const unsigned flags : {0u, 1u, 2u, 3u}) {
            timing.flags = static_cast<std::uint16_t>(flags);
            for (const std::string_view error : {"", "Key\"Error"}) {
                const std::string members = render_timing_fragment(
                    "na\"me", "par\\ent", timing,
                    r.renderer.clock().duration_ns(1'000'000'000) / 1e9, 4711, error);
                CHECK(r.line(RecordKind::fragment, members) ==
                      r.line(RecordKind::timing, timing_payload(timing, error)));
            }
        }
    }

    TEST_CASE("should give 10,000 metrics of one record back to a strict reader") {
        Rendering r;
        std::vector<std::string> names;
        for (int i = 0; i < 10'000; ++i)
            names.push_back("layer." + std::to_string(i) + "\t\"norm\"");
        const std::vector<std::string_view> keys(names.begin(), names.end());
        MetricsBuilder builder(1, r.table.intern(keys));
        std::mt19937_64 random(9);
        std::vector<double> values;
        for (int i = 0; i < 10'000; ++i) {
            values.push_back(
                std::ldexp(static_cast<double>(random()), -static_cast<int>(random() % 90)));
            builder.real(values.back());
        }
        const Json line = parse(split_lines(r.metrics(builder))[0]);
        const Json& metrics = line["metrics"];
        REQUIRE(metrics.members.size() == names.size());
        for (std::size_t i = 0; i < names.size(); ++i) {
            if (metrics.members[i].first != names[i]) FAIL_CHECK(names[i]);
            if (std::stod(metrics.members[i].second.text) != values[i]) FAIL_CHECK(values[i]);
        }
    }

    TEST_CASE("should give random records back to a strict reader") {
        Rendering r;
        std::mt19937_64 random(11);
        std::vector<std::vector<std::string>> sets(50);
        for (std::size_t s = 0; s < sets.size(); ++s) {
            for (std::size_t k = 0; k < s % 9; ++k) {
                std::string key(random() % 6, '\0');
                for (char& c : key) c = static_cast<char>(random() % 128);
                sets[s].push_back(key + std::to_string(k));
            }
        }
        for (int i = 0; i < scaled(5'000, 500); ++i) {
            const auto& names = sets[random() % sets.size()];
            const std::vector<std::string_view> keys(names.begin(), names.end());
            MetricsBuilder builder(static_cast<std::int64_t>(random()), r.table.intern(keys));
            std::vector<Json> values;
            for (std::size_t k = 0; k < names.size(); ++k) {
                Json value;
                switch (random() % 5) {
                    case 0:
                        builder.null();
                        break;
                    case 1:
                        value.kind = Json::Kind::boolean;
                        value.truth = random() % 2 == 0;
                        builder.boolean(value.truth);
                        break;
                    case 2: {
                        const auto number = static_cast<std::int64_t>(random());
                        value.kind = Json::Kind::number;
                        value.text = std::to_string(number);
                        builder.integer(number);
                        break;
                    }
                    case 3:
                        value.kind = Json::Kind::number;
                        value.text = "0.5";
                        builder.real(0.5);
                        break;
                    default:
                        value.kind = Json::Kind::string;
                        value.text = std::string(random() % 20, static_cast<char>(random() % 128));
                        builder.string(value.text);
                }
                values.push_back(value);
            }
            const Json metrics = parse(split_lines(r.metrics(builder))[0])["metrics"];
            REQUIRE(metrics.keys() == names);
            for (std::size_t k = 0; k < values.size(); ++k) {
                REQUIRE(metrics.members[k].second.kind == values[k].kind);
                REQUIRE(metrics.members[k].second.text == values[k].text);
                REQUIRE(metrics.members[k].second.truth == values[k].truth);
            }
        }
    }
}
