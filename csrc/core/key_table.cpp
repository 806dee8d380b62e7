#include "core/key_table.hpp"

#include <algorithm>
#include <cstring>
#include <new>

#include "core/crc32c.hpp"
#include "core/json_writer.hpp"

namespace fastlog {
namespace {

void put_u32(std::string& out, std::size_t value) {
    const auto v = static_cast<std::uint32_t>(value);
    char bytes[sizeof v];
    std::memcpy(bytes, &v, sizeof v);
    out.append(bytes, sizeof v);
}

std::uint32_t get_u32(const std::byte* at) {
    std::uint32_t v;
    std::memcpy(&v, at, sizeof v);
    return v;
}

constexpr std::size_t kCrcOffset = 8;
constexpr std::size_t kKeysOffset = 12;

// Checksum of an entry without its checksum field.
std::uint32_t entry_crc(const std::byte* entry) {
    const std::uint32_t crc = crc32c(0, entry, kCrcOffset);
    return crc32c(crc, entry + kKeysOffset, get_u32(entry) - kKeysOffset);
}

}  // namespace

KeyTable::KeyTable(std::byte* arena, std::size_t bytes) noexcept
    : arena_(arena), capacity_(bytes - kHeaderBytes) {
    new (arena_) Published(0);
}

bool KeyTable::fits(std::string_view key) {
    if (key.size() > kMaxKeyText) return false;
    std::string text;
    json::append_string(text, key);
    return text.size() <= kMaxKeyText;
}

std::uint32_t KeyTable::intern(const std::vector<std::string_view>& keys) {
    if (!std::all_of(keys.begin(), keys.end(), fits)) return kNone;
    std::string entry;
    put_u32(entry, 0);
    put_u32(entry, keys.size());
    put_u32(entry, 0);
    for (std::string_view key : keys) {
        put_u32(entry, key.size());
        entry.append(key);
    }
    entry.resize((entry.size() + 7) & ~std::size_t{7}, '\0');
    const auto entry_bytes = static_cast<std::uint32_t>(entry.size());
    std::memcpy(entry.data(), &entry_bytes, sizeof entry_bytes);
    const std::uint32_t crc = entry_crc(reinterpret_cast<const std::byte*>(entry.data()));
    std::memcpy(entry.data() + kCrcOffset, &crc, sizeof crc);

    const std::lock_guard lock(mutex_);
    if (const auto found = ids_.find(entry); found != ids_.end()) return found->second;
    auto* published = reinterpret_cast<Published*>(arena_);
    const std::uint64_t used = published->load(std::memory_order_relaxed);  // only written below
    const std::uint32_t id = count_.load(std::memory_order_relaxed);
    if (id == kMaxSets || used + entry.size() > capacity_) return kNone;
    std::memcpy(arena_ + kHeaderBytes + used, entry.data(), entry.size());
    ids_.emplace(std::move(entry), id);
    count_.store(id + 1, std::memory_order_relaxed);
    published->store(used + entry_bytes, std::memory_order_release);
    return id;
}

bool KeyTable::Reader::next(std::vector<std::string_view>& keys) {
    const auto* published = reinterpret_cast<const Published*>(arena_);
    const std::uint64_t end = std::min(published->load(std::memory_order_acquire), capacity_);
    if (end < 8 || offset_ > end - 8) return false;
    const std::byte* at = arena_ + kHeaderBytes + offset_;
    const std::uint32_t entry_bytes = get_u32(at);
    const std::uint32_t count = get_u32(at + 4);
    if (entry_bytes < kKeysOffset || entry_bytes % 8 != 0 || entry_bytes > end - offset_ ||
        count > entry_bytes / 4 || get_u32(at + kCrcOffset) != entry_crc(at)) {
        return false;
    }
    const std::byte* entry_end = at + entry_bytes;
    at += kKeysOffset;
    keys.clear();
    keys.reserve(count);
    for (std::uint32_t i = 0; i < count; ++i) {
        if (entry_end - at < 4) return false;
        const std::uint32_t length = get_u32(at);
        if (length > entry_end - at - 4) return false;
        keys.emplace_back(reinterpret_cast<const char*>(at + 4), length);
        at += 4 + length;
    }
    offset_ += entry_bytes;
    return true;
}

}  // namespace fastlog
