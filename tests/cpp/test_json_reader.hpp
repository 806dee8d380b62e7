// A slow, obvious, strict JSON reader (RFC 8259): the oracle for lines.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fastlog::test {

struct Json {
    enum class Kind { null, boolean, number, string, object, array };
    Kind kind = Kind::null;
    bool truth = false;
    std::string text;  // a number as it stands, or a decoded string
    std::vector<std::pair<std::string, Json>> members;
    std::vector<Json> items;

    const Json& operator[](std::string_view key) const {
        for (const auto& [name, value] : members) {
            if (name == key) return value;
        }
        throw std::runtime_error("no member " + std::string(key));
    }
    bool has(std::string_view key) const {
        for (const auto& member : members) {
            if (member.first == key) return true;
        }
        return false;
    }
    std::vector<std::string> keys() const {
        std::vector<std::string> names;
        for (const auto& member : members) names.push_back(member.first);
        return names;
    }
    std::uint64_t count() const { return std::stoull(text); }
};

class JsonReader {
  public:
    static Json parse(std::string_view text) {
        JsonReader reader(text);
        Json value = reader.value();
        if (reader.at_ != text.size()) reader.fail("text behind the value");
        return value;
    }

  private:
    explicit JsonReader(std::string_view text) : text_(text) {}

    [[noreturn]] void fail(const std::string& why) const {
        throw std::runtime_error(why + " at " + std::to_string(at_) + " of " + std::string(text_));
    }
    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
    char take() {
        if (at_ == text_.size()) fail("end of text");
        return text_[at_++];
    }
    bool skip(char c) {
        if (peek() != c || at_ == text_.size()) return false;
        ++at_;
        return true;
    }
    void expect(std::string_view word) {
        for (char c : word) {
            if (take() != c) fail("expected " + std::string(word));
        }
    }

    Json value() {
        Json out;
        switch (peek()) {
            case '{':
                return object();
            case '[':
                return array();
            case '"':
                out.kind = Json::Kind::string;
                out.text = string();
                return out;
            case 'n':
                expect("null");
                return out;
            case 't':
            case 'f':
                out.kind = Json::Kind::boolean;
                out.truth = peek() == 't';
                expect(out.truth ? "true" : "false");
                return out;
            default:
                out.kind = Json::Kind::number;
                out.text = number();
                return out;
        }
    }

    // No white space anywhere: this package writes none.
    Json object() {
        Json out;
        out.kind = Json::Kind::object;
        expect("{");
        if (skip('}')) return out;
        do {
            std::string key = string();
            expect(":");
            Json member = value();
            out.members.emplace_back(std::move(key), std::move(member));
        } while (skip(','));
        expect("}");
        std::vector<std::string> keys = out.keys();
        std::sort(keys.begin(), keys.end());
        if (std::adjacent_find(keys.begin(), keys.end()) != keys.end()) fail("a key twice");
        return out;
    }

    Json array() {
        Json out;
        out.kind = Json::Kind::array;
        expect("[");
        if (skip(']')) return out;
        do out.items.push_back(value());
        while (skip(','));
        expect("]");
        return out;
    }

    std::size_t digits() {
        const std::size_t begin = at_;
        while (std::isdigit(static_cast<unsigned char>(peek())) != 0) ++at_;
        if (at_ == begin) fail("expected a digit");
        return at_ - begin;
    }

    std::string number() {
        const std::size_t begin = at_;
        skip('-');
        const bool zero = peek() == '0';
        if (digits() > 1 && zero) fail("leading zero");
        if (skip('.')) digits();
        if (skip('e') || skip('E')) {
            if (!skip('+')) skip('-');
            digits();
        }
        return std::string(text_.substr(begin, at_ - begin));
    }

    std::string string() {
        std::string out;
        expect("\"");
        for (;;) {
            const char c = take();
            if (c == '"') return out;
            if (static_cast<unsigned char>(c) < 0x20) fail("raw control character");
            out.push_back(c == '\\' ? escaped() : c);
        }
    }

    char escaped() {
        constexpr std::string_view kLetters = "\"\\/bfnrt";
        constexpr std::string_view kMeant = "\"\\/\b\f\n\r\t";
        const char c = take();
        if (const std::size_t at = kLetters.find(c); at != kLetters.npos) return kMeant[at];
        if (c != 'u') fail("unknown escape");
        expect("00");  // beyond Latin-1 this package writes UTF-8 itself
        const std::string hex{take(), take()};
        std::size_t used = 0;
        const int code = std::stoi(hex, &used, 16);
        if (used != 2 || code >= 0x20) fail("needless or bad escape");
        return static_cast<char>(code);
    }

    std::string_view text_;
    std::size_t at_ = 0;
};

inline Json parse(std::string_view text) { return JsonReader::parse(text); }

}  // namespace fastlog::test
