#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "doctest/doctest.h"
#include "reader/arrow_export.hpp"
#include "test_reader_support.hpp"
#include "test_support.hpp"

namespace {

using namespace reader_tests;
using fastlog::test::TempDir;
using fastlog::test::write_file;

struct Writer {
    std::string text;
    std::int64_t rank = 0;
    std::int64_t start = 0;
    Cutoffs cutoffs{};
};

std::shared_ptr<Frame> frame_of(const std::vector<Writer>& writers, ScanLimits limits = {},
                                Options options = {}) {
    std::vector<Source> sources;
    std::vector<SourceRows> rows;
    for (const Writer& writer : writers) {
        sources.push_back({Stream::kMetrics, {in_memory(writer.text)}});
        rows.push_back({{},
                        writer.rank,
                        writer.start,
                        writer.rank == 0 ? "" : "r" + std::to_string(writer.rank),
                        true,
                        std::make_shared<Cutoffs>(writer.cutoffs)});
    }
    scan(
        sources, options, limits,
        [&rows](Part&& part) { rows[part.source].chunks.push_back(std::move(part.chunk)); }, [] {});
    return std::make_shared<Frame>(Stream::kMetrics, std::move(rows));
}

/// A column as text, by way of the Arrow stream that others would read.
std::vector<std::string> column(const std::shared_ptr<Frame>& frame, const std::string& name) {
    ArrowArrayStream stream;
    export_stream(frame, &stream);
    ArrowSchema schema;
    REQUIRE(stream.get_schema(&stream, &schema) == 0);
    std::int64_t at = 0;
    while (at < schema.n_children && schema.children[at]->name != name) ++at;
    REQUIRE(at < schema.n_children);
    const std::string format = schema.children[at]->format;
    std::vector<std::string> out{format};
    for (;;) {
        ArrowArray batch;
        REQUIRE(stream.get_next(&stream, &batch) == 0);
        if (batch.release == nullptr) break;
        REQUIRE(batch.n_children == schema.n_children);
        ArrowArray& part = *batch.children[at];
        REQUIRE(part.length == batch.length);
        const auto* const valid =
            format == "n" ? nullptr : static_cast<const std::uint8_t*>(part.buffers[0]);
        CHECK((valid != nullptr || part.null_count == 0 || format == "n"));
        for (std::int64_t i = 0; i < part.length; ++i) {
            if (format == "n" || (valid != nullptr && (valid[i / 8] >> i % 8 & 1) == 0)) {
                out.push_back("null");
            } else if (format == "g") {
                std::string text;
                fastlog::json::append_double(text, static_cast<const double*>(part.buffers[1])[i]);
                out.push_back(text);
            } else if (format == "b") {
                const auto* const bits = static_cast<const std::uint8_t*>(part.buffers[1]);
                out.push_back((bits[i / 8] >> i % 8 & 1) != 0 ? "true" : "false");
            } else if (format == "U") {
                const auto* const ends = static_cast<const std::int64_t*>(part.buffers[1]);
                out.emplace_back(static_cast<const char*>(part.buffers[2]) + ends[i],
                                 static_cast<std::size_t>(ends[i + 1] - ends[i]));
            } else {
                out.push_back(std::to_string(static_cast<const std::int64_t*>(part.buffers[1])[i]));
            }
        }
        batch.release(&batch);
        CHECK((batch.release == nullptr));
    }
    schema.release(&schema);
    stream.release(&stream);
    CHECK((stream.release == nullptr));
    return out;
}

using Texts = std::vector<std::string>;

std::string steps_of(int first, int end, int second = 15) {
    std::string text;
    for (int i = first; i < end; ++i) {
        text += line(i - first, i, "\"loss\":" + std::to_string(i) + ".5", second);
    }
    return text;
}

TEST_CASE("a column has one type, whatever the lines say") {
    const auto frame = frame_of(
        {{line(0, 0, R"("i":1,"f":1,"m":1,"b":true,"t":"x","n":null,"big":18446744073709551615)") +
          line(1, 1, R"("i":2,"f":0.5,"m":"x","b":null,"o":{"a":[]},"big":1)") +
          line(2, 2, R"("f":3,"m":false,"late":7,"rank":1,"":2)")}});
    CHECK(column(frame, "i") == Texts{"l", "1", "2", "null"});
    CHECK(column(frame, "f") == Texts{"g", "1.0", "0.5", "3.0"});
    CHECK(column(frame, "m") == Texts{"U", "1", "x", "false"});
    CHECK(column(frame, "b") == Texts{"b", "true", "null", "null"});
    CHECK(column(frame, "t") == Texts{"U", "x", "null", "null"});
    CHECK(column(frame, "n") == Texts{"n", "null", "null", "null"});
    CHECK(column(frame, "o") == Texts{"U", "null", "{\"a\":[]}", "null"});
    CHECK(column(frame, "big") == Texts{"g", "18446744073709551616.0", "1.0", "null"});
    CHECK(column(frame, "late") == Texts{"l", "null", "null", "7"});
    CHECK(column(frame, "metrics.rank") == Texts{"l", "null", "null", "1"});
    CHECK(column(frame, "metrics.") == Texts{"l", "null", "null", "2"});
    CHECK(column(frame, "epoch") == Texts{"l", "null", "null", "null"});
    std::vector<std::string> names;
    for (const FrameColumn& one : frame->columns()) names.push_back(one.name);
    CHECK(names == Texts{"timestamp", "seq", "step", "epoch", "i", "f", "m", "b", "t", "n", "big",
                         "o", "late", "metrics.rank", "metrics.", "rank", "start", "label"});
}

TEST_CASE("each metric has a column of its own, whatever others are called") {
    const auto frame = frame_of({{line(0, 0, R"("step":1,"metrics.step":2,"":3,"metrics.":4)") +
                                  line(1, 1, R"("a\u0000":5,"a\\u0000":6)")}});
    CHECK(column(frame, "metrics.metrics.step") == Texts{"l", "1", "null"});
    CHECK(column(frame, "metrics.step") == Texts{"l", "2", "null"});
    CHECK(column(frame, "metrics.metrics.") == Texts{"l", "3", "null"});
    CHECK(column(frame, "metrics.") == Texts{"l", "4", "null"});
    CHECK(column(frame, "metrics.a\\u0000") == Texts{"l", "null", "5"});
    CHECK(column(frame, "a\\u0000") == Texts{"l", "null", "6"});
}

TEST_CASE("values that all rows have are handed out where they lie") {
    const auto frame = frame_of({{steps_of(0, 1000)}});
    const Chunk& chunk = *frame->sources()[0].chunks[0];
    Frame::Batches batches(*frame);
    const auto batch = batches.next();
    CHECK(batches.next() == nullptr);
    CHECK(batch->columns[kTimeColumn].buffers[1] == chunk.time.data());
    CHECK(batch->columns[kSeqColumn].buffers[1] == chunk.seq.data());
    CHECK(batch->columns[frame->step_column()].buffers[1] == chunk.step.data());
    CHECK(batch->columns[4].buffers[1] == chunk.metrics.find("loss")->data());
}

TEST_CASE("writers are merged by time, and each keeps its own order") {
    // The clock of the first one steps back, and a time that is none is compared as text.
    const std::string first = line(0, 1, "", 20) + line(1, 2, "", 10) + line(2, 3, "", 40);
    const std::string second = line(0, 11, "", 15) + line(1, 12, "", 20) + line(2, 13, "", 50);
    const auto frame = frame_of({{first}, {second, 1}});
    CHECK(column(frame, "step") == Texts{"l", "11", "1", "2", "12", "3", "13"});
    CHECK(column(frame, "rank") == Texts{"l", "1", "0", "0", "1", "0", "1"});
    CHECK(column(frame, "label") == Texts{"U", "r1", "", "", "r1", "", "r1"});
    std::string odd = line(0, 21, "");
    odd.replace(odd.find("2026"), 27, "2026-01-30, at 20 seconds  ");
    const auto third = frame_of({{first}, {odd, 1}});
    CHECK(column(third, "step") == Texts{"l", "21", "1", "2", "3"});
    CHECK(column(third, "timestamp")[1] == "null");
}

TEST_CASE("later starts take over a name from a step, and from an epoch, and no other name") {
    const auto values = [](int from, int end, int second) {
        std::string text;
        for (int i = from; i < end; ++i) {
            const std::string n = std::to_string(i);
            text += line(i - from, i, R"("loss":)" + n + R"(.5,"lr":)" + n, second);
        }
        return text;
    };
    const std::string summary =
        R"({"timestamp":"2026-01-30T14:32:10.200000Z","seq":5,"epoch":1,"summary":{"loss":1}})";
    Cutoffs loss;
    loss["loss"] = {3, 1.0};
    Cutoffs both = loss;
    both["lr"] = {4, std::nullopt};
    const auto one = frame_of({{values(0, 5, 10) + summary + "\n", 0, 0, loss}});
    CHECK(column(one, "step") == Texts{"l", "0", "1", "2", "3", "4"});
    CHECK(column(one, "loss") == Texts{"g", "0.5", "1.5", "2.5", "null", "null"});
    CHECK(column(one, "lr") == Texts{"l", "0", "1", "2", "3", "4"});
    using Left = std::vector<std::pair<std::string, std::int64_t>>;
    CHECK(one->selection().left_out().get() == Left{{"loss", 3}});
    const auto two = frame_of({{values(0, 5, 10), 0, 0, both}, {values(3, 5, 20), 1, 1}});
    CHECK(column(two, "step") == Texts{"l", "0", "1", "2", "3", "3", "4"});
    CHECK(column(two, "loss") == Texts{"g", "0.5", "1.5", "2.5", "null", "3.5", "4.5"});
    CHECK(column(two, "start") == Texts{"l", "0", "0", "0", "0", "1", "1"});
    CHECK(two->rows() == 6);
}

TEST_CASE("a writer that went back takes back what it had recorded from there") {
    const auto back = [](int seq, int step) {
        return R"({"timestamp":"2026-01-30T14:32:15.5Z","seq":)" + std::to_string(seq) +
               R"(,"rewind":)" + std::to_string(step) + "}\n";
    };
    // Steps 0 to 4; back to 3, then 3 to 4; back to 1, then 1. Of what is left the last value counts.
    std::string text = steps_of(0, 5) + back(5, 3);
    text += line(6, 3, R"("loss":30.5)") + line(7, 4, R"("loss":40.5)") + back(8, 1);
    text += line(9, 1, R"("loss":10.5)");
    const auto frame = frame_of({{text}, {steps_of(0, 3, 20), 1}});
    CHECK(column(frame, "step") == Texts{"l", "0", "1", "0", "1", "2"});
    CHECK(column(frame, "loss") == Texts{"g", "0.5", "10.5", "0.5", "1.5", "2.5"});
    CHECK(frame->selection().left_out().get()[0].second == 6);
}

TEST_CASE("a writer that went back takes summaries back from the epoch that it says") {
    const auto summary = [](int seq, int epoch) {
        return R"({"timestamp":"2026-01-30T14:32:15.5Z","seq":)" + std::to_string(seq) +
               R"(,"epoch":)" + std::to_string(epoch) + R"(,"summary":{"loss":)" +
               std::to_string(seq) + "}}\n";
    };
    const auto back = [](int seq, const std::string& fields) {
        return R"({"timestamp":"2026-01-30T14:32:15.5Z","seq":)" + std::to_string(seq) +
               R"(,"rewind":9)" + fields + "}\n";
    };
    const std::string epochs = summary(0, 0) + summary(1, 1) + summary(2, 2);
    const auto all = frame_of({{epochs + back(3, "") + summary(4, 1)}});
    CHECK(column(all, "loss") == Texts{"l", "0", "1", "2", "4"});
    const auto some = frame_of({{epochs + back(3, R"(,"epoch":1)") + summary(4, 1)}});
    CHECK(column(some, "loss") == Texts{"l", "0", "4"});
    const auto twice = frame_of(
        {{epochs + back(3, R"(,"epoch":0.5)") + summary(4, 1) + back(5, R"(,"epoch":2)")}});
    CHECK(column(twice, "loss") == Texts{"l", "0", "4"});
}

TEST_CASE("a line that tells of drops has its place in time, and no row") {
    const std::string marker = R"({"timestamp":"2026-01-30T14:32:30.000000Z","seq":1,"dropped":3})";
    const auto alone = frame_of({{line(0, 1, "") + marker + "\n" + line(2, 2, "")}});
    CHECK(column(alone, "step") == Texts{"l", "1", "2"});
    const auto merged = frame_of(
        {{line(0, 1, "", 10) + marker + "\n" + line(2, 2, "", 10)}, {line(0, 11, "", 20), 1}});
    CHECK(column(merged, "step") == Texts{"l", "1", "11", "2"});
}

TEST_CASE("many threads and small parts give what one gives") {
    std::vector<Writer> writers;
    for (int w = 0; w < 3; ++w) {
        std::string text;
        for (int i = 0; i < 40'000; ++i) {
            std::string metrics = "\"loss\":" + std::to_string(i) + ".25";
            if (i % 7 == w)
                metrics += ",\"val_" + std::to_string(i % 5) + "\":" + std::to_string(i);
            text += line(i, i, metrics);
        }
        writers.push_back({text, w});
    }
    ScanLimits one;
    one.threads = 1;
    ScanLimits several;
    several.threads = 4;
    several.part_bytes = 1;  // as small as they get
    several.ahead = 1;
    const auto calm = frame_of(writers, one);
    const auto busy = frame_of(writers, several);
    CHECK(busy->sources()[0].chunks.size() > calm->sources()[0].chunks.size());
    for (const char* name : {"timestamp", "seq", "loss", "val_0", "val_4", "rank"}) {
        CHECK(column(calm, name) == column(busy, name));
    }
}

TEST_CASE("who takes parts, and who is asked to go on, may end a scan") {
    const std::string text = steps_of(0, 100'000);
    for (const unsigned threads : {1U, 3U}) {
        ScanLimits limits;
        limits.threads = threads;
        const std::vector<Source> sources{{Stream::kMetrics, {in_memory(text)}}};
        CHECK_THROWS_AS(
            scan(
                sources, {}, limits, [](Part&&) { throw std::runtime_error("enough"); }, [] {}),
            std::runtime_error);
    }
    ScanLimits limits;
    limits.threads = 1;
    const std::vector<Source> sources{{Stream::kMetrics, {in_memory(text)}}};
    CHECK_THROWS_AS(
        scan(
            sources, {}, limits, [](Part&&) {}, [] { throw std::runtime_error("stop"); }),
        std::runtime_error);
}

TEST_CASE("a scan that is ended does not wait for the end of a compressed file") {
    const TempDir directory;
    Segment endless;
    endless.path = directory / "packed";
    write_file(endless.path, "packed");
    endless.read_on = [](std::uint64_t, char* to, std::size_t count, std::size_t& taken) {
        std::memset(to, 'x', taken = count);
        return 0;
    };
    CHECK_THROWS_AS(scan(
                        {{Stream::kMetrics, {endless}}}, {}, {}, [](Part&&) {},
                        [] { throw std::runtime_error("stop"); }),
                    std::runtime_error);
}

TEST_CASE("a file that is gone, or shorter than its writer left it, is told") {
    Segment gone;
    gone.path = "/no/such/file";
    Segment cut;
    cut.path = "/dev/null";
    std::vector<int> errors;
    scan(
        {{Stream::kMetrics, {gone, cut}}}, {}, {},
        [&errors](Part&& part) { errors.push_back(part.chunk->error); }, [] {});
    CHECK(errors == std::vector<int>{ENOENT, EINVAL});
}

TEST_CASE(
    "what only reads on is one part, read in order by another thread, and as far as it goes") {
    const TempDir directory;
    const std::string text = steps_of(0, 1000);
    for (const int error : {0, EIO}) {
        for (const bool whole : {true, false}) {
            std::uint64_t next = 0;
            bool ordered = true;
            const auto caller = std::this_thread::get_id();
            Segment packed;
            packed.path = directory.path() + "/packed";
            write_file(packed.path, "packed");
            packed.whole = whole;
            packed.kept = {{0, text.size() / 2}, {text.size() / 2, text.size()}};
            packed.read_on = [&](std::uint64_t offset, char* to, std::size_t count,
                                 std::size_t& taken) {
                ordered = ordered && (offset == next || offset == 0) &&
                          std::this_thread::get_id() != caller;
                taken = std::min({count, std::size_t{whole ? 999U : count},
                                  text.size() - static_cast<std::size_t>(offset)});
                std::memcpy(to, text.data() + offset, taken);
                next = offset + taken;
                if (error != 0 && offset >= text.size() / 2) taken = 0;
                return taken == 0 ? error : 0;
            };
            std::vector<std::pair<std::int64_t, int>> parts;
            ScanLimits limits;
            limits.part_bytes = 1;
            scan(
                {{Stream::kMetrics, {packed}}}, {}, limits,
                [&](Part&& part) { parts.emplace_back(part.chunk->lines, part.chunk->error); },
                [] {});
            CHECK(ordered);
            REQUIRE(parts.size() == 1);
            CHECK(parts[0].second == error);
            CHECK((error == 0 ? parts[0].first == 1000 : parts[0].first < 1000));
            if (whole) CHECK(parts[0].first > 400);
        }
    }
}

TEST_CASE("a part of an array that was moved out lives on by itself") {
    auto frame = frame_of({{steps_of(0, 3)}});
    ArrowArrayStream stream;
    export_stream(frame, &stream);
    frame.reset();
    ArrowArray batch;
    REQUIRE(stream.get_next(&stream, &batch) == 0);
    stream.release(&stream);
    ArrowArray loss = *batch.children[4];
    batch.children[4]->release = nullptr;  // as the specification has it
    batch.release(&batch);
    CHECK(static_cast<const double*>(loss.buffers[1])[2] == 2.5);
    loss.release(&loss);
    CHECK((loss.release == nullptr));
}

}  // namespace
