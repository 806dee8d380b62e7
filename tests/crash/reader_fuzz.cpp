// reader_fuzz executions=N first=I: damaged and hostile lines, read in this process.
//
// Each execution is a function of its number alone. Some lines of a stream are mutated and read in
// several ways: whole, in parts of any size through any window, as a frame whose every value is
// touched, as sums, and as lines merged by time. Run it under ASan and UBSan. Checked besides: how a
// text is cut makes no difference, and all ways agree on how many lines there are.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../cpp/test_reader_support.hpp"
#include "driver.hpp"
#include "reader/frame.hpp"
#include "reader/line_merge.hpp"
#include "reader/sums.hpp"

namespace crash {
namespace {

using namespace reader_tests;

const std::vector<std::string> kLines = {
    R"({"timestamp":"2026-01-30T14:32:15.123456Z","seq":7,"step":1,"epoch":2,"metrics":{"loss":2.456,"lr":1e-04,"ok":true,"z":null},"nonfinite":{"z":"nan"}})",
    R"({"timestamp":"2026-01-30T14:32:15.223456Z","seq":8,"step":2,"metrics":{"loss":1,"val_loss":0.25},"missing":{"lr":"lost"}})",
    R"({"timestamp":"2026-01-30T14:32:15.323456Z","seq":9,"epoch":2,"summary":{"loss":2.5}})",
    R"({"timestamp":"2026-01-30T14:32:15.423456Z","seq":10,"dropped":17})",
    R"({"timestamp":"2026-01-30T14:32:15.523456Z","seq":11,"rewind":1})",
    R"({"timestamp":"2026-01-30T14:32:15.623456Z","seq":12,"name":"forward","duration_s":0.02,"step":1,"depth":1,"device":"cuda:0","device_duration_s":null})",
    R"({"timestamp":"2026-01-30T14:32:15.723456Z","seq":13,"level":"INFO","message":"a\u00fcb\n","context":{"path":["x",{"y":null}]}})",
    R"({"timestamp":"2026-01-30T14:32:15.823456Z","seq":14,"system":{"cpu":0.5,"gpu":12345678901234567890}})",
};
class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(mix(seed)) {}
    std::uint64_t below(std::uint64_t end) {
        state_ = mix(state_);
        return (state_ >> 11) % end;
    }

  private:
    std::uint64_t state_;
};

void require(bool holds, const char* what, std::uint64_t number) {
    if (holds) return;
    std::fprintf(stderr, "execution %llu: %s\n", static_cast<unsigned long long>(number), what);
    std::abort();
}

/// Whether a line is one of a stream.
bool is_of(std::size_t line, Stream stream) {
    constexpr Stream kStreams[] = {Stream::kMetrics, Stream::kMetrics, Stream::kMetrics,
                                   Stream::kMetrics, Stream::kMetrics, Stream::kPerformance,
                                   Stream::kErrors,  Stream::kSystem};
    if (line == 3 || line == 4) return true;  // markers
    return kStreams[line] == stream ||
           (stream == Stream::kLog && kStreams[line] == Stream::kErrors);
}

std::string make_text(Random& random, Stream stream) {
    std::string text;
    const std::uint64_t lines = 1 + random.below(6);
    for (std::uint64_t i = 0; i < lines; ++i) {
        auto chosen = static_cast<std::size_t>(random.below(kLines.size()));
        while (!is_of(chosen, stream) && random.below(16) != 0) {
            chosen = static_cast<std::size_t>(random.below(kLines.size()));
        }
        std::string line = kLines[chosen];
        for (std::uint64_t n = random.below(3); n > 0; --n) {
            mutate(line, kLines, [&random](std::size_t end) { return random.below(end); });
        }
        text += line;
        if (i + 1 < lines || random.below(4) != 0) text += '\n';
    }
    return text;
}

/// Reads each value of a frame, as one who takes it by Arrow would.
std::uint64_t touch(const std::shared_ptr<Frame>& frame) {
    std::uint64_t sum = 0;
    Frame::Batches batches(*frame);
    while (const auto batch = batches.next()) {
        for (std::size_t c = 0; c < batch->columns.size(); ++c) {
            const ColumnPart& part = batch->columns[c];
            const Type type = frame->columns()[c].type;
            if (type == Type::kNull || part.buffers[1] == nullptr) continue;
            const auto* const values = static_cast<const unsigned char*>(part.buffers[1]);
            std::size_t bytes = part.rows * 8;
            if (type == Type::kBool) bytes = (part.rows + 7) / 8;
            if (type == Type::kText) {
                bytes = (part.rows + 1) * 8;
                const auto* const ends = static_cast<const std::int64_t*>(part.buffers[1]);
                const auto* const text = static_cast<const unsigned char*>(part.buffers[2]);
                for (std::int64_t i = 0; i < ends[part.rows]; ++i) sum += text[i];
            }
            for (std::size_t i = 0; i < bytes; ++i) sum += values[i];
        }
        sum += batch->rows;
    }
    return sum;
}

struct Totals {
    std::uint64_t lines = 0;
    std::uint64_t sound = 0;
    std::uint64_t shown = 0;
    std::uint64_t sum = 0;
};

void execute(std::uint64_t number, Totals& totals) {
    Random random(number);
    const auto stream = static_cast<Stream>(random.below(5));
    const std::string texts[] = {make_text(random, stream), make_text(random, stream)};
    const Outcome whole = read_text(texts[0], {}, stream);
    const Outcome cut = read_text(texts[0], {}, stream, 1 + random.below(300),
                                  static_cast<std::size_t>(1 + random.below(500)));
    require(whole == cut, "how it is cut makes a difference", number);

    std::vector<Source> sources;
    std::vector<SourceRows> rows;
    auto cutoffs = std::make_shared<Cutoffs>();
    (*cutoffs)["loss"] = {static_cast<std::int64_t>(random.below(3)), 2.0};
    (*cutoffs)["forward"] = {1, std::nullopt};
    for (const std::string& text : texts) {
        sources.push_back({stream, {in_memory(text)}});
        rows.push_back({{}, static_cast<std::int64_t>(rows.size()), 0, "r", true, cutoffs});
    }
    Options options;
    if (random.below(3) == 0) options.names = {false, false, {"l*", "[f-v]o*"}};
    if (random.below(3) == 0) options.last_step = 1;
    options.note_firsts = options.note_steps = options.list_names = random.below(2) == 0;
    std::vector<SourceRows> read = rows;
    std::int64_t lines = 0;
    std::int64_t damaged = 0;
    ScanLimits limits;
    limits.threads = 1;
    scan(
        sources, options, limits,
        [&](Part&& part) {
            lines += part.chunk->lines;
            damaged += static_cast<std::int64_t>(part.chunk->damages.size());
            read[part.source].chunks.push_back(std::move(part.chunk));
        },
        [] {});
    const auto frame = std::make_shared<Frame>(stream, std::move(read));
    totals.sum += touch(frame);
    require(frame->rows() <= lines - damaged, "more rows than sound lines", number);
    std::int64_t merged = 0;
    LineMerge merge(sources, {{1, 1.0}, {}}, [](Part&&) {});
    while (merge.read(1 + random.below(500), [&](const LineMerge::Line& line) {
        ++merged;
        totals.sum += line.text.size() + line.is_asked;
        require(line.text.find('\n') == std::string_view::npos, "a line of two", number);
    })) {
    }
    require(merged == lines - damaged, "another number of sound lines", number);
    if (stream == Stream::kMetrics || stream == Stream::kPerformance || stream == Stream::kSystem) {
        Sums sums(stream, {"", ""});
        std::int64_t summed = 0;
        sums.read(
            sources, rows, limits, [&](Part&& part) { summed += part.chunk->lines; },
            [&] { summed = 0; }, [] {});
        require(summed == lines, "another number of lines", number);
    }
    totals.lines += static_cast<std::uint64_t>(lines);
    totals.sound += static_cast<std::uint64_t>(merged);
    totals.shown += static_cast<std::uint64_t>(frame->rows());
}

}  // namespace
}  // namespace crash

int main(int count, char** words) {
    std::uint64_t first = 0;
    std::uint64_t executions = 1000;
    for (int i = 1; i < count; ++i) {
        const std::string_view word = words[i];
        if (word.starts_with("first=")) first = std::strtoull(words[i] + 6, nullptr, 10);
        if (word.starts_with("executions=")) executions = std::strtoull(words[i] + 11, nullptr, 10);
    }
    crash::Totals totals;
    for (std::uint64_t i = first; i < first + executions; ++i) crash::execute(i, totals);
    const auto number = [](std::uint64_t n) { return static_cast<unsigned long long>(n); };
    std::printf("{\"executions\":%llu,\"lines\":%llu,\"sound\":%llu,\"shown\":%llu}\n",
                number(executions), number(totals.lines), number(totals.sound),
                number(totals.shown));
    return 0;
}
