#include "reader/moment.hpp"

namespace fastlog::reader {
namespace {

/// Days from 1970-01-01: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
std::int64_t days_from_civil(int year, int month, int day) noexcept {
    year -= month <= 2;
    const int era = (year >= 0 ? year : year - 399) / 400;
    const int yoe = year - era * 400;
    const int doy = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    const int doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return static_cast<std::int64_t>(era) * 146097 + doe - 719468;
}

int days_in(int year, int month) noexcept {
    constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return kDays[month - 1] + (month == 2 && leap ? 1 : 0);
}

}  // namespace

bool MomentReader::read_second(const char* p) noexcept {
    constexpr char kForm[] = "0000-00-00T00:00:00.";
    for (int i = 0; i < 20; ++i) {
        if (kForm[i] == '0' ? !is_digit(p[i]) : p[i] != kForm[i]) return false;
    }
    const auto two = [p](int at) { return (p[at] - '0') * 10 + (p[at + 1] - '0'); };
    const int year = two(0) * 100 + two(2);
    const int month = two(5);
    const int day = two(8);
    const int hour = two(11);
    const int minute = two(14);
    const int second = two(17);
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > days_in(year, month) || hour > 23 ||
        minute > 59 || second > 59) {
        return false;
    }
    const std::int64_t seconds =
        days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    base_us_ = seconds * 1'000'000;
    day_[0] = load8(p);
    day_[1] = load8(p + 8);
    second_ = load4(p + 16);
    return true;
}

std::string moment_text(std::int64_t us) {
    std::int64_t seconds = us / 1'000'000;
    std::int64_t rest = us % 1'000'000;
    if (rest < 0) {
        rest += 1'000'000;
        --seconds;
    }
    std::int64_t days = seconds / 86400;
    std::int64_t in_day = seconds % 86400;
    if (in_day < 0) {
        in_day += 86400;
        --days;
    }
    days += 719468;
    const std::int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    const std::int64_t doe = days - era * 146097;
    const std::int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    const std::int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    const std::int64_t mp = (5 * doy + 2) / 153;
    const std::int64_t month = mp < 10 ? mp + 3 : mp - 9;
    const std::int64_t year = yoe + era * 400 + (month <= 2 ? 1 : 0);
    std::string text = "0000-00-00T00:00:00.000000Z";
    const auto put = [&text](std::size_t at, int width, std::int64_t number) {
        for (std::size_t i = at + static_cast<std::size_t>(width); i-- > at; number /= 10) {
            text[i] = static_cast<char>('0' + number % 10);
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, doy - (153 * mp + 2) / 5 + 1);
    put(11, 2, in_day / 3600);
    put(14, 2, in_day / 60 % 60);
    put(17, 2, in_day % 60);
    put(20, 6, rest);
    return text;
}

}  // namespace fastlog::reader
