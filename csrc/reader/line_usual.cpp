// The beginning that nearly all lines of metrics have.
#include <cstring>
#include <string_view>

#include "reader/line_fields.hpp"
#include "reader/line_parser.hpp"

namespace fastlog::reader {

const char* LineParser::parse_usual(const char* p) {
    constexpr std::string_view kTimestamp = R"({"timestamp":")";
    constexpr std::string_view kSeqKey = R"(,"seq":)";
    constexpr std::string_view kStepKey = R"(,"step":)";
    constexpr std::string_view kMetricsKey = R"(,"metrics":{)";
    const auto is = [&p](std::string_view text) {
        if (std::memcmp(p, text.data(), text.size()) != 0) return false;
        p += text.size();
        return true;
    };
    // A natural number below 10^15, without a zero in front.
    const auto number = [&p](std::int64_t& out) {
        const std::uint64_t word = load8(p);
        unsigned count = count_digits(word);
        if (count == 0 || (*p == '0' && count != 1)) return false;
        std::uint64_t value = some_digits(word, count);
        if (count == 8) [[unlikely]] {
            const std::uint64_t more = load8(p + 8);
            count = count_digits(more);
            if (count == 8) return false;
            value = value * kTens[count] + some_digits(more, count);
            count += 8;
        }
        out = static_cast<std::int64_t>(value);
        p += count;
        return true;
    };
    if (!is(kTimestamp)) return nullptr;
    line_.time = moments_.read(p);
    if (line_.time == kNoTime) return nullptr;
    p += MomentReader::kSize + 1;
    if (!is(kSeqKey) || !number(line_.seq) || !is(kStepKey) || !number(line_.step) ||
        !is(kMetricsKey)) {
        return nullptr;
    }
    line_.has = flag(kTime) | flag(kSeq) | flag(kStep);
    line_.metrics = Body::kObject;
    p = parse_values(p, chunk_.metrics, metrics_);
    if (p == nullptr) line_ = Line{};
    return p;
}

}  // namespace fastlog::reader
