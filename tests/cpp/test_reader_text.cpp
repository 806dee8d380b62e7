#include <string>

#include "doctest/doctest.h"
#include "reader/line_parser.hpp"
#include "reader/moment.hpp"
#include "reader/text.hpp"

namespace {

using namespace fastlog::reader;

std::string padded(const std::string& text) { return text + std::string(kPadding, '\n'); }

/// The value of a string, from its first quote on; "!" where it is none.
std::string value_of(const std::string& text) {
    const std::string line = padded(text);
    std::string_view value;
    std::string scratch;
    const char* const end = parse_string(line.data() + 1, value, scratch);
    CHECK(end == skip_string(line.data() + 1));
    if (end == nullptr) return "!";
    CHECK(end == line.data() + text.size());
    return std::string(value);
}

bool is_value(const std::string& text, unsigned depth = 0) {
    const std::string line = padded(text);
    return skip_value(line.data(), depth) == line.data() + text.size();
}

TEST_CASE("a string is what JSON says it is") {
    CHECK(value_of(R"("")") == "");
    CHECK(value_of(R"("loss of the validation set")") == "loss of the validation set");
    CHECK(value_of(R"("\"\\\/\b\f\n\r\t")") == "\"\\/\b\f\n\r\t");
    CHECK(value_of(R"("\u00e9\u20AC")") == "\xc3\xa9\xe2\x82\xac");
    CHECK(value_of(R"("a\ud83d\ude00b")") ==
          "a\xf0\x9f\x98\x80"
          "b");
    CHECK(value_of("\"\xf0\x90\x80\x80 \x7f\"") == "\xf0\x90\x80\x80 \x7f");
    CHECK(value_of(std::string("\"\\u0000\"")) == std::string(1, '\0'));
}

TEST_CASE("a string that JSON does not know is none") {
    for (const char* text :
         {R"("\x")", R"("\u12g4")", R"("\ud800")", R"("\ud800\u0041")", R"("\ude00")", "\"\x1f\"",
          "\"\n\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"",
          "\"\x80\"", "\"\xf5\x80\x80\x80\"", "\"\xe0\x80\x80\""}) {
        CAPTURE(text);
        CHECK(value_of(text) == "!");
    }
}

TEST_CASE("values may lie within each other, up to a bound") {
    for (const char* text : {"null", "[]", "{}", "[1,[2,{\"a\":[]}],\"x\"]",
                             "{\"a\":{\"b\":[true,false]}}", " [ 1 , 2 ] "}) {
        CAPTURE(text);
        const std::string trimmed = text[0] == ' ' ? "[ 1 , 2 ]" : text;
        CHECK(is_value(trimmed));
    }
    for (const char* text :
         {"[1,]", "{\"a\":1,}", "[1 2]", "{\"a\" 1}", "{1:2}", "[}", "tru", "[", "nulL"}) {
        CAPTURE(text);
        CHECK_FALSE(is_value(text));
    }
    const auto nested = [](unsigned count) {
        return std::string(count, '[') + std::string(count, ']');
    };
    CHECK(is_value(nested(kMaxDepth)));
    CHECK_FALSE(is_value(nested(kMaxDepth + 1)));
    CHECK_FALSE(is_value(nested(kMaxDepth), 1));
    CHECK_FALSE(is_value(nested(1'000'000)));
}

TEST_CASE("a time is read to the microsecond, and written as it was") {
    MomentReader moments;
    for (const char* text : {"1970-01-01T00:00:00.000001Z", "2026-01-30T14:32:15.123456Z",
                             "2026-01-30T14:32:15.999999Z", "2024-02-29T23:59:59.000000Z",
                             "0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z",
                             "1969-12-31T23:59:59.999999Z"}) {
        CAPTURE(text);
        const std::int64_t us = moments.read(padded(std::string(text) + '"').data());
        REQUIRE(us != kNoTime);
        CHECK(moment_text(us) == text);
    }
    CHECK(moments.read(padded("2026-01-30T14:32:15.123456Z\"").data()) == 1769783535123456);
}

TEST_CASE("what is no time of a line is told apart") {
    MomentReader moments;
    for (const char* text : {"", "2026-02-29T00:00:00.000000Z", "2026-13-01T00:00:00.000000Z",
                             "2026-01-30T24:00:00.000000Z", "2026-01-30T14:32:15.12345Z",
                             "2026-01-30T14:32:15.123456+00:00", "2026-01-30 14:32:15.123456Z",
                             "0000-01-01T00:00:00.000000Z", "2026-01-30T14:32:15.12x456Z",
                             "2026-01-30T14:32:60.000000Z"}) {
        CAPTURE(text);
        CHECK(moments.read(padded(std::string(text) + '"').data()) == kNoTime);
    }
}

TEST_CASE("patterns fit names as they do in a shell") {
    CHECK(fits("loss", "loss"));
    CHECK(fits("val_*", "val_loss"));
    CHECK(fits("*loss*", "train_loss_1"));
    CHECK(fits("layer?.norm", "layer3.norm"));
    CHECK(fits("layer[0-3]", "layer2"));
    CHECK(fits("layer[!0-3]", "layer4"));
    CHECK(fits("x[]a]", "x]"));
    CHECK(fits("a[0]", "a[0]"));  // a name fits itself
    CHECK(fits("**", ""));
    CHECK(fits("[", "["));
    CHECK(fits("?", "é"));  // a character, however many bytes it has
    CHECK(fits("[λμ]_1", "μ_1"));
    CHECK(fits("[а-я]*с", "лосс"));
    CHECK(fits("*[!a]", "aé"));
    CHECK_FALSE(fits("??", "é"));
    CHECK_FALSE(fits("[!λ]_1", "λ_1"));
    CHECK_FALSE(fits("loss", "val_loss"));
    CHECK_FALSE(fits("val_*", "loss"));
    CHECK_FALSE(fits("layer[!0-3]", "layer2"));
    CHECK_FALSE(fits("?", ""));
    // A hostile pattern takes no more than its length times the name's.
    std::string hostile(200, '*');
    hostile += 'b';
    CHECK_FALSE(fits(hostile, std::string(10'000, 'a')));
}

}  // namespace
