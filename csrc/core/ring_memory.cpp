#include "core/ring_memory.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <new>
#include <system_error>

namespace fastlog {

RingMemory::RingMemory(std::size_t ring_bytes)
    : size_(kControlBytes + kKeyTableBytes + ring_bytes), ring_bytes_(ring_bytes) {
    void* base = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) {
        throw std::system_error(errno, std::generic_category(),
                                "cannot map " + std::to_string(size_) + " bytes for the ring");
    }
    base_ = static_cast<std::byte*>(base);
#ifdef MADV_DONTFORK
    ::madvise(base_, size_, MADV_DONTFORK);
#endif
    // Touch the data pages now, so that the first lap of record() does not pay for page faults.
    for (std::size_t offset = 0; offset < ring_bytes_; offset += 4096) {
        *reinterpret_cast<volatile std::byte*>(data() + offset) = std::byte{0};
    }
    new (base_) RingControl{};
}

RingMemory::~RingMemory() { ::munmap(base_, size_); }

}  // namespace fastlog
