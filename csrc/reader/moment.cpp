#include "reader/moment.hpp"

#include <chrono>

namespace fastlog::reader {
bool MomentReader::read_second(const char* p) noexcept {
    constexpr char kForm[] = "0000-00-00T00:00:00.";
    for (int i = 0; i < 20; ++i) {
        if (kForm[i] == '0' ? !is_digit(p[i]) : p[i] != kForm[i]) return false;
    }
    const auto two = [p](int at) { return (p[at] - '0') * 10 + (p[at + 1] - '0'); };
    const int year = two(0) * 100 + two(2);
    const std::chrono::year_month_day date(std::chrono::year(year),
                                           std::chrono::month(static_cast<unsigned>(two(5))),
                                           std::chrono::day(static_cast<unsigned>(two(8))));
    const int hour = two(11);
    const int minute = two(14);
    const int second = two(17);
    if (year < 1 || !date.ok() || hour > 23 || minute > 59 || second > 59) return false;
    const std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
    const std::int64_t seconds = days * 86400 + hour * 3600 + minute * 60 + second;
    base_us_ = seconds * 1'000'000;
    day_[0] = load8(p);
    day_[1] = load8(p + 8);
    second_ = load4(p + 16);
    return true;
}

std::string moment_text(std::int64_t us) {
    const std::chrono::sys_time<std::chrono::microseconds> moment{std::chrono::microseconds(us)};
    const auto midnight = std::chrono::floor<std::chrono::days>(moment);
    const std::chrono::year_month_day date(midnight);
    const std::int64_t in_day = (moment - midnight).count();
    const std::int64_t second = in_day / 1'000'000;
    std::string text = "0000-00-00T00:00:00.000000Z";
    const auto put = [&text](std::size_t at, int width, std::int64_t number) {
        for (std::size_t i = at + static_cast<std::size_t>(width); i-- > at; number /= 10) {
            text[i] = static_cast<char>('0' + number % 10);
        }
    };
    put(0, 4, static_cast<int>(date.year()));
    put(5, 2, static_cast<unsigned>(date.month()));
    put(8, 2, static_cast<unsigned>(date.day()));
    put(11, 2, second / 3600);
    put(14, 2, second / 60 % 60);
    put(17, 2, second % 60);
    put(20, 6, in_day % 1'000'000);
    return text;
}

}  // namespace fastlog::reader
