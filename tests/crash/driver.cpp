#include "driver.hpp"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/json_writer.hpp"
#include "core/recovery.hpp"

// FASTLOG_TEST_FAIL_SYNC=n: the n-th fdatasync() of this process fails with EIO. Takes the place of
// the C library's function.
extern "C" __attribute__((visibility("default"))) int fdatasync(int fd) {
    static std::atomic<long> calls{0};
    const char* failing = std::getenv("FASTLOG_TEST_FAIL_SYNC");
    if (failing != nullptr && calls.fetch_add(1) + 1 == std::atol(failing)) {
        errno = EIO;
        return -1;
    }
    return static_cast<int>(::syscall(SYS_fdatasync, fd));
}

namespace crash {

Arguments::Arguments(int count, char** words) {
    for (int i = 0; i < count; ++i) {
        const char* equals = std::strchr(words[i], '=');
        if (equals == nullptr) fail(std::string("not key=value: ") + words[i]);
        values_[std::string(words[i], static_cast<std::size_t>(equals - words[i]))] = equals + 1;
    }
}

const std::string& Arguments::text(const std::string& key) const {
    const auto found = values_.find(key);
    if (found == values_.end()) fail("missing: " + key + "=");
    return found->second;
}

std::string Arguments::text(const std::string& key, const std::string& otherwise) const {
    const auto found = values_.find(key);
    return found == values_.end() ? otherwise : found->second;
}

std::uint64_t Arguments::number(const std::string& key, std::uint64_t otherwise) const {
    const auto found = values_.find(key);
    return found == values_.end() ? otherwise : std::strtoull(found->second.c_str(), nullptr, 10);
}

void fail(const std::string& sentence) {
    std::fprintf(stderr, "driver: %s\n", sentence.c_str());
    std::_Exit(2);
}

namespace {

int recover(const Arguments& arguments) {
    for (const fastlog::RecoveryReport& report : fastlog::recover_run(arguments.text("dir"))) {
        std::string line = "{";
        const auto add = [&](const char* key, std::uint64_t value) {
            line += std::string("\"") + key + "\":" + std::to_string(value) + ",";
        };
        const auto add_text = [&](const char* key, const std::string& value) {
            line += std::string("\"") + key + "\":";
            fastlog::json::append_string(line, value);
            line += ",";
        };
        add_text("outcome", fastlog::outcome_name(report.outcome));
        add_text("ring", report.ring);
        add_text("label", report.label);
        add_text("reason", report.reason);
        add("same_boot", report.same_boot ? 1 : 0);
        add("emitted", report.emitted);
        add("skipped", report.skipped);
        add("holes", report.holes);
        add("hole_bytes", report.hole_bytes);
        add("damaged", report.damaged);
        add("cut_bytes", report.cut_bytes);
        line.back() = '}';
        std::puts(line.c_str());
    }
    return 0;
}

}  // namespace
}  // namespace crash

int main(int count, char** words) {
    const std::string command = count > 1 ? words[1] : "";
    const crash::Arguments arguments(count > 2 ? count - 2 : 0, words + 2);
    if (command == "record") return crash::record(arguments);
    if (command == "recover") return crash::recover(arguments);
    if (command == "fuzz") return crash::fuzz(arguments);
    crash::fail("record, recover or fuzz?");
}
