// Where recovery puts what it does not trust.
#pragma once

#include <unistd.h>

#include <string>

#include "core/file_sink.hpp"

namespace fastlog {

/// A descriptor that is closed (and its lock given up) at the end of its scope.
class Descriptor {
  public:
    explicit Descriptor(int fd) : fd_(fd) {}
    ~Descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const noexcept { return fd_; }

  private:
    int fd_;
};

/// Moves a file into the directory "quarantine" of `directory`, with the reason beside it. Nothing is
/// deleted, nothing that is there already is replaced, and a link in that directory's place is not
/// followed.
SinkError quarantine(const std::string& directory, const std::string& path,
                     const std::string& reason);

}  // namespace fastlog
