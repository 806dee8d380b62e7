// What the C++ tests share: a temporary directory, a ring with its memory, payload builders.
#pragma once

#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#define DOCTEST_CONFIG_SUPER_FAST_ASSERTS  // to compile
#include "doctest/doctest.h"

#include "core/clock.hpp"
#include "core/mpsc_ring.hpp"
#include "core/record.hpp"
#include "core/stream_files.hpp"
#include "test_json_reader.hpp"

namespace fastlog::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

/// A repetition count: `plain`, or `sanitized` where every access costs ten times as much.
template <class T>
constexpr T scaled(T plain, T sanitized) {
    return kSanitized ? sanitized : plain;
}

inline constexpr std::int64_t kHourNs = 3'600'000'000'000;

/// A point of time that only a hanging test reaches.
inline std::int64_t far_deadline() { return monotonic_ns() + 60'000'000'000; }

/// Asks until `condition` holds; false when it never does.
template <class Condition>
bool eventually(Condition&& condition) {
    const std::int64_t deadline = far_deadline();
    while (!condition()) {
        if (monotonic_ns() > deadline) return false;
        const timespec pause{0, 200'000};
        ::nanosleep(&pause, nullptr);
    }
    return true;
}

/// Threads that each run `body` with its number.
class Threads {
  public:
    template <class Count, class Body>
    Threads(Count count, Body body) {
        for (Count n = 0; n < count; ++n) threads_.emplace_back([body, n] { body(n); });
    }
    void join() {
        for (auto& thread : threads_) thread.join();
    }

  private:
    std::vector<std::thread> threads_;
};

/// A directory of its own, removed with all that is in it.
class TempDir {
  public:
    TempDir() {
        std::string name = (std::filesystem::temp_directory_path() / "fastlog-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~TempDir() {
        std::error_code ignored;  // a directory that stays behind in /tmp is no failure
        std::filesystem::remove_all(path_, ignored);
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;

    const std::string& path() const { return path_; }
    std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

  private:
    std::string path_;
};

inline std::string read_file(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) throw std::runtime_error("no file " + path);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void write_file(const std::string& path, std::string_view text) {
    std::ofstream out(path, std::ios::binary);
    out.write(text.data(), static_cast<std::streamsize>(text.size()));
    if (!out.flush()) throw std::runtime_error("cannot write " + path);
}

inline bool exists(const std::string& path) {
    struct stat info;
    return ::lstat(path.c_str(), &info) == 0;
}

/// The lines of a text in which every line ends in "\n".
inline std::vector<std::string> split_lines(std::string_view text) {
    std::vector<std::string> lines;
    while (!text.empty()) {
        const std::size_t end = text.find('\n');
        if (end == std::string_view::npos) throw std::runtime_error("torn last line");
        lines.emplace_back(text.substr(0, end));
        text.remove_prefix(end + 1);
    }
    return lines;
}

inline std::vector<std::string> lines_of(const std::string& path) {
    return split_lines(read_file(path));
}

// ---- ring and records ---------------------------------------------------------------------------

/// Zeroed bytes on a cache line of their own.
class AlignedBytes {
  public:
    explicit AlignedBytes(std::size_t size)
        : at_(static_cast<std::byte*>(::operator new(size, std::align_val_t{kCacheLine}))) {
        std::memset(at_, 0, size);
    }
    ~AlignedBytes() { ::operator delete(at_, std::align_val_t{kCacheLine}); }
    AlignedBytes(const AlignedBytes&) = delete;
    AlignedBytes& operator=(const AlignedBytes&) = delete;
    std::byte* get() const { return at_; }

  private:
    std::byte* at_;
};

/// A ring over memory of its own, with what a producer and a consumer do in one call each.
template <template <class> class Atomic = std::atomic>
struct BasicTestRing {
    using Ring = BasicMpscRing<Atomic>;
    explicit BasicTestRing(std::size_t capacity, std::uint64_t salt = 0x5EED)
        : memory(capacity), ring(&control, memory.get(), capacity, salt) {}

    BasicRingControl<Atomic> control{};
    AlignedBytes memory;
    Ring ring;
    std::uint64_t cursor = 0;

    void fill(const typename Ring::Claim& claim, std::string_view payload,
              RecordKind kind = RecordKind::fragment, Stream stream = Stream::metrics,
              std::uint64_t ticks = now_ticks()) {
        Ring::fill_header(claim, static_cast<std::uint32_t>(payload.size()), ticks, 7, kind,
                          stream);
        if (!payload.empty()) std::memcpy(Ring::payload_of(claim), payload.data(), payload.size());
    }

    ClaimStatus put(std::string_view payload, RecordKind kind = RecordKind::fragment,
                    Stream stream = Stream::metrics, std::uint64_t ticks = now_ticks()) {
        typename Ring::Claim claim{};
        const ClaimStatus status = ring.try_claim(payload.size(), claim);
        if (status != ClaimStatus::claimed) return status;
        fill(claim, payload, kind, stream, ticks);
        ring.commit(claim);
        return status;
    }

    /// Reads the next record that is no pad, and gives its bytes back at once.
    bool take(std::string& payload) {
        const RecordHeader* record = ring.peek(cursor);
        while (record != nullptr && record->kind == RecordKind::pad) {
            cursor = Ring::after(cursor, *record);
            record = ring.peek(cursor);
        }
        if (record == nullptr) {
            ring.release_to(cursor);
            return false;
        }
        payload.assign(reinterpret_cast<const char*>(record + 1), record->length);
        cursor = Ring::after(cursor, *record);
        ring.release_to(cursor);
        return true;
    }
};
using TestRing = BasicTestRing<>;

/// Builds the payload of a metrics record, in the layout that record.hpp draws.
class MetricsBuilder {
  public:
    MetricsBuilder(std::int64_t step, std::uint32_t key_set) : step_(step), key_set_(key_set) {}

    MetricsBuilder& real(double value) {
        std::uint64_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        return add(ValueTag::real, bits);
    }
    MetricsBuilder& integer(std::int64_t value) {
        return add(ValueTag::integer, static_cast<std::uint64_t>(value));
    }
    MetricsBuilder& null() { return add(ValueTag::null, 0); }
    MetricsBuilder& pending(PendingValue value) { return add(ValueTag::pending, value.bits()); }
    MetricsBuilder& missing(std::uint64_t bits) { return add(ValueTag::missing, bits); }
    MetricsBuilder& raw(ValueTag tag, std::uint64_t bits) { return add(tag, bits); }
    MetricsBuilder& string(std::string_view text) {
        add(ValueTag::string, (std::uint64_t{strings_.size()} << 32) | text.size());
        strings_.append(text);
        return *this;
    }

    std::string payload() const {
        const MetricsPayload head{step_, key_set_, static_cast<std::uint16_t>(tags_.size()), 0};
        std::string out(metrics_strings_offset(tags_.size()), '\0');
        std::memcpy(out.data(), &head, sizeof head);
        for (std::size_t i = 0; i < tags_.size(); ++i) {
            out[sizeof head + i] = static_cast<char>(tags_[i]);
            std::memcpy(out.data() + metrics_values_offset(tags_.size()) + i * 8, &values_[i], 8);
        }
        return out + strings_;
    }

  private:
    MetricsBuilder& add(ValueTag tag, std::uint64_t bits) {
        tags_.push_back(tag);
        values_.push_back(bits);
        return *this;
    }

    std::int64_t step_;
    std::uint32_t key_set_;
    std::vector<ValueTag> tags_;
    std::vector<std::uint64_t> values_;
    std::string strings_;
};

/// Runs `body` in a forked child and returns its exit code; no destructor runs there.
template <class Body>
int in_forked_child(Body&& body) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(body());
    REQUIRE(child > 0);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

}  // namespace fastlog::test
