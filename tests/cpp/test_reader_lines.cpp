#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "doctest/doctest.h"
#include "test_reader_support.hpp"

namespace {

using namespace reader_tests;

const std::string kHead = R"({"timestamp":"2026-01-30T14:32:15.123456Z","seq":4)";

/// What is read of one line of metrics behind its `seq`; "damaged" where it is.
std::string row_of(const std::string& rest, Stream stream = Stream::kMetrics) {
    const Outcome out = read_text(kHead + rest + "\n", {}, stream);
    REQUIRE(out.lines == 1);
    if (!out.damaged.empty()) {
        CHECK(out.rows.empty());
        CHECK(out.chunks[0]->texts.empty());
        return "damaged";
    }
    REQUIRE(out.rows.size() == 1);
    const std::string head = "#=4 ";
    const std::string time = "@=2026-01-30T14:32:15.123456Z ";
    REQUIRE(out.rows[0].substr(0, head.size() + time.size()) == head + time);
    return out.rows[0].substr(head.size() + time.size());
}

TEST_CASE("each value keeps its type") {
    CHECK(
        row_of(R"(,"step":7,"epoch":2,"metrics":{"f":1.5,"i":-3,"t":true,"n":null,"s":"a\nb"}})") ==
        "epoch=2 m.f=1.5 m.i=-3 m.n=null m.s=\"a\nb\" m.t=true step=7 ");
    CHECK(row_of(R"(,"metrics":{"big":18446744073709551615,"deep":{"a":[1]}}})") ==
          "m.big=18446744073709551615 m.deep={\"a\":[1]} ");
    CHECK(row_of(R"(,"epoch":0.5,"summary":{"loss":2.0}})") == "epoch=0.5 s.loss=2.0 ");
    CHECK(row_of(R"(,"dropped":17})") == "dropped=17 ");
}

TEST_CASE("what JSON cannot say is put back, and what never arrived is told apart") {
    CHECK(row_of(R"(,"epoch":null,"metrics":{"a":null,"b":null,"c":null},)"
                 R"("nonfinite":{"epoch":"nan","a":"-inf","x":"nan"},"missing":{"c":"lost"}})") ==
          "epoch=nan m.a=-inf m.b=null m.c=null ~c=lost ");
    // Wherever the fields stand, and only where there is null.
    CHECK(row_of(R"(,"nonfinite":{"a":"inf","b":"nan"},"metrics":{"b":1,"a":null}})") ==
          "m.a=inf m.b=1 ");
    CHECK(row_of(R"(,"metrics":{"a":null},"nonfinite":{"a":"unknown"}})") == "m.a=null ");
}

TEST_CASE("a key that a line has twice has its last value") {
    CHECK(row_of(R"(,"step":1,"metrics":{"a":1,"b":2,"a":"x"},"step":null})") ==
          "m.a=\"x\" m.b=2 ");
    CHECK(row_of(R"(,"metrics":{"a":1},"metrics":{"b":2}})") == "m.b=2 ");
    CHECK(row_of(R"(,"metrics":5,"metrics":{"b":2}})") == "m.b=2 ");
    CHECK(row_of(R"(,"metrics":{"b":2},"metrics":5})") == "damaged");
    CHECK(row_of(R"(,"seq":"x","metrics":{}})") == "damaged");
    CHECK(row_of(R"(,"name":"a","parent":"b","parent":null,"duration_s":1})",
                 Stream::kPerformance) == "duration_s=1 name=\"a\" ");
}

TEST_CASE("blanks and escapes change nothing") {
    const std::string plain = row_of(R"(,"step":7,"metrics":{"loss":1.5,"lr":2}})");
    CHECK(row_of(" ,\t\"step\" : 7 , \"metrics\": { \"loss\" : 1.5 , \"lr\" :2 } } \r") == plain);
    CHECK(row_of(R"(,"st\u0065p":7,"metrics":{"\u006coss":1.5,"lr":2}})") == plain);
    CHECK(row_of(R"(,"unknown":[{"a":1}],"step":7,"metrics":{"loss":1.5,"lr":2},"more":"x"})") ==
          plain);
}

TEST_CASE("blanks may come where there were none in the line before") {
    const std::string plain = line(0, 0, "\"loss\":1.5");
    std::string spaced = plain;
    for (const char* key : {"\"seq\":", "\"timestamp\":", "\"loss\":", "\"metrics\":"}) {
        spaced.insert(spaced.find(key) + std::strlen(key), "\t ");
    }
    const Outcome out = read_text(plain + spaced + plain);
    REQUIRE(out.rows.size() == 3);
    CHECK(out.rows[1] == out.rows[0]);
}

TEST_CASE("a line without what readers rely on is damaged") {
    for (const char* rest :
         {"}", ",\"step\":1}", ",\"step\":\"1\",\"metrics\":{}}", ",\"step\":1.0,\"metrics\":{}}",
          ",\"step\":9223372036854775808,\"metrics\":{}}", ",\"seq\":-1,\"metrics\":{}}",
          ",\"epoch\":true,\"metrics\":{}}", ",\"metrics\":[]}", ",\"metrics\":null}",
          ",\"metrics\":{},\"nonfinite\":[]}", ",\"metrics\":{},\"missing\":{\"a\":null}}",
          ",\"dropped\":null}", ",\"dropped\":1.5}", ",\"metrics\":{}", ",\"metrics\":{}}}",
          ",\"metrics\":{\"a\":1,}}", ",\"metrics\":{\"a\"}}", ",\"metrics\":{\"a\":NaN}}",
          ",\"metrics\":{\"text\":\"is kept by nobody\",\"a\":01}}"}) {
        CAPTURE(rest);
        CHECK(row_of(rest) == "damaged");
    }
    const auto performance = [](const char* rest) { return row_of(rest, Stream::kPerformance); };
    CHECK(performance(R"(,"name":1,"duration_s":1})") == "damaged");
    CHECK(performance(R"(,"name":"x","duration_s":null})") == "damaged");
    CHECK(performance(R"(,"name":"x","duration_s":1,"device":0})") == "damaged");
    CHECK(performance(R"(,"name":"x","duration_s":1,"device_duration_s":"1"})") == "damaged");
    CHECK(row_of(R"(,"level":"INFO"})", Stream::kLog) == "damaged");
    CHECK(row_of(R"(,"level":"INFO","message":"x","context":null})", Stream::kLog) == "damaged");
    CHECK(row_of(R"(,"level":"INFO","message":"x","context":{"a": 1}})", Stream::kLog) ==
          "context=\"{\"a\": 1}\" level=\"INFO\" message=\"x\" ");
}

TEST_CASE("only what is wanted becomes rows, and all is accounted for") {
    std::string text;
    for (int i = 0; i < 10; ++i) {
        text += line(i, i, i % 2 == 0 ? "\"loss\":1.5,\"lr\":2" : "\"val_loss\":0.5");
    }
    Options options;
    options.names = {false, false, {"val_*"}};
    const Outcome named = read_text(text, options);
    CHECK(named.rows.size() == 5);
    CHECK(named.rows[0].find("m.val_loss=0.5") != std::string::npos);
    options.names = {};
    options.first_step = 3;
    options.last_step = 4;
    const Outcome cut = read_text(text, options);
    CHECK(cut.rows.size() == 2);
    options.only_count = true;
    options.note_steps = true;
    options.note_firsts = true;
    const Outcome counted = read_text(text, options);
    CHECK(counted.rows.empty());
    for (const Outcome* out : {&named, &cut, &counted}) {
        REQUIRE(out->chunks[0]->seqs.size() == 1);
        CHECK(out->chunks[0]->seqs[0].count == 10);
    }
    REQUIRE(counted.chunks[0]->recorded_steps.size() == 1);
    CHECK(counted.chunks[0]->recorded_steps[0].last == 9);
}

TEST_CASE("a number that does not follow begins a new run of numbers") {
    const Outcome out = read_text(line(0, 0, "") + line(1, 0, "") + "x\n" + line(2, 0, "") +
                                  line(9, 0, "") + line(4, 0, ""));
    const auto& seqs = out.chunks[0]->seqs;
    REQUIRE(seqs.size() == 4);
    CHECK((seqs[1].first == 2 && seqs[1].line == 3));
    CHECK((seqs[2].first == 9 && seqs[3].first == 4));
    CHECK(out.damaged == std::vector<std::int64_t>{2});
}

TEST_CASE("a line that does not end, or not in time, is no line") {
    const std::string whole = line(0, 0, "") + line(1, 1, "");
    const Outcome torn = read_text(whole + "{\"torn");
    CHECK(torn.tail == 6);
    CHECK(torn.rows.size() == 2);
    const std::string text = line(0, 0, "") + std::string(5000, 'x') + "\n" + line(1, 1, "");
    for (const std::uint64_t part : {100U, 2000U, 100000U}) {
        const Outcome out = read_text(text, {}, Stream::kMetrics, part, 256, 1000);
        CHECK(out.rows.size() == 2);
        CHECK(out.damaged == std::vector<std::int64_t>{1});
        CHECK(out.lines == 3);
    }
    const Outcome endless =
        read_text(whole + std::string(5000, 'x'), {}, Stream::kMetrics, 777, 256, 1000);
    CHECK(endless.tail == 5000);
    CHECK(endless.rows.size() == 2);
}

// ---- any text -------------------------------------------------------------------------------

const std::vector<std::string> kSeeds = {
    R"({"timestamp":"2026-01-30T14:32:15.123456Z","seq":0,"step":1,"epoch":2,"metrics":{"loss":2.456,"lr":1e-04,"ok":true}})",
    R"({"timestamp":"2026-01-30T14:32:15.223456Z","seq":1,"step":2,"metrics":{"loss":null,"note":"a\u00e9\n\"x\""},"nonfinite":{"loss":"nan"}})",
    R"({"timestamp":"2026-01-30T14:32:15.323456Z","seq":2,"epoch":2,"summary":{"loss":2.5,"val_loss":2.7}})",
    R"({"timestamp":"2026-01-30T14:32:15.423456Z","seq":3,"step":3,"metrics":{"loss":null,"n":12345678901234567890},"missing":{"loss":"lost"}})",
    R"({"timestamp":"2026-01-30T14:32:15.523456Z","seq":4,"dropped":17})",
    R"({"timestamp":"2026-01-30T14:32:15.623456Z","seq":5,"name":"forward","duration_s":0.0234,"step":1,"depth":1,"parent":"step","thread":4711,"device":"cuda:0","device_duration_s":null,"missing":{"device_duration_s":"lost"}})",
    R"({"timestamp":"2026-01-30T14:32:15.723456Z","seq":6,"level":"ERROR","logger":"train","message":"Größe","error_type":"OSError","context":{"path":["x",{"y":null}]},"nonfinite":{"path.1.y":"inf"}})",
};
std::string mutated(std::mt19937_64& random) {
    const auto below = [&random](std::size_t end) {
        return static_cast<std::size_t>(random() % end);
    };
    std::string text = kSeeds[below(kSeeds.size())];
    for (std::size_t changes = below(4); changes-- > 0;) mutate(text, kSeeds, below);
    return text + "\n";
}

TEST_CASE("any text reads alike, whatever the parts, the windows and the lines before") {
    const char* const asked = std::getenv("FASTLOG_FUZZ");
    const int rounds = asked != nullptr ? std::atoi(asked) : 3000;
    std::mt19937_64 random(7);
    std::int64_t sound = 0;
    for (int round = 0; round < rounds; ++round) {
        CAPTURE(round);
        const auto stream = static_cast<Stream>(random() % 5);
        std::string text;
        Outcome alone;  // each line by a parser that has seen none
        std::vector<std::string> rows;
        std::int64_t lines = 0;
        for (std::size_t count = 1 + random() % 12; count-- > 0;) {
            const std::string more = mutated(random);
            text += more;
            std::size_t begin = 0;
            for (std::size_t end; (end = more.find('\n', begin)) != std::string::npos;
                 begin = end + 1) {
                const Outcome one = read_text(more.substr(begin, end + 1 - begin), {}, stream);
                rows.insert(rows.end(), one.rows.begin(), one.rows.end());
                lines += one.lines;
            }
        }
        const Outcome whole = read_text(text, {}, stream);
        REQUIRE(whole.rows == rows);
        REQUIRE(whole.lines == lines);
        sound += static_cast<std::int64_t>(rows.size());
        const Outcome parts = read_text(text, {}, stream, 1 + random() % 300, 1 + random() % 200);
        REQUIRE(parts == whole);
        Options options;
        options.only_count = true;
        const Outcome counted = read_text(text, options, stream, 1 + random() % 300, 64);
        REQUIRE(counted.damaged == whole.damaged);
        if (random() % 2 == 0) text.pop_back();
        REQUIRE(read_text(text, {}, stream, 1 + random() % 300, 1 + random() % 200) ==
                read_text(text, {}, stream));
    }
    CHECK(sound > rounds / 4);
}

}  // namespace
