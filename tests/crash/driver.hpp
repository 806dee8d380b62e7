// The driver of the crash tests: records, recovers and fuzzes with csrc/core.
//
//   driver record dir=RUN acks=FILE [key=value ...]    see driver_record.cpp
//   driver recover dir=RUN                             one JSON report a line
//   driver fuzz executions=N seed=S scratch=DIR        see driver_fuzz.cpp
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace crash {

/// The arguments behind the command, as key=value.
class Arguments {
  public:
    Arguments(int count, char** words);
    const std::string& text(const std::string& key) const;  // exits when it is missing
    std::string text(const std::string& key, const std::string& otherwise) const;
    std::uint64_t number(const std::string& key, std::uint64_t otherwise) const;

  private:
    std::map<std::string, std::string> values_;
};

/// Ends the process with a sentence on stderr and status 2.
[[noreturn]] void fail(const std::string& sentence);

/// Sebastiano Vigna's splitmix64: the only source of what is random here, so that the oracle in
/// Python can repeat it.
constexpr std::uint64_t mix(std::uint64_t x) noexcept {
    x += 0x9E3779B97F4A7C15ULL;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
}

int record(const Arguments& arguments);
int fuzz(const Arguments& arguments);

}  // namespace crash
