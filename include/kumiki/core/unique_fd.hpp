// A file descriptor that closes itself: move-only, one kernel object, made from and released to a
// plain int.
//
// close(2) on Linux always frees the descriptor, also when it reports EINTR or EIO, so its result
// is not looked at here: what must know whether data reached a disk calls fsync(2) first.
#pragma once

#include <unistd.h>

#include <utility>

namespace kumiki::inline v0 {

/// Owns one file descriptor, or none (-1).
class unique_fd {
  public:
    constexpr unique_fd() noexcept = default;
    /// Takes over `fd`; a negative one stands for none.
    constexpr explicit unique_fd(int fd) noexcept : fd_(fd < 0 ? -1 : fd) {}
    unique_fd(unique_fd&& other) noexcept : fd_(other.release()) {}
    unique_fd& operator=(unique_fd&& other) noexcept {
        if (this != &other) reset(other.release());
        return *this;
    }
    unique_fd(const unique_fd&) = delete;
    unique_fd& operator=(const unique_fd&) = delete;
    ~unique_fd() { reset(); }

    /// The descriptor, still owned here; -1 when there is none.
    constexpr int get() const noexcept { return fd_; }
    constexpr explicit operator bool() const noexcept { return fd_ >= 0; }
    /// Gives the descriptor to the caller, who closes it.
    [[nodiscard]] constexpr int release() noexcept { return std::exchange(fd_, -1); }
    /// Closes what is held and takes over `fd`.
    void reset(int fd = -1) noexcept {
        const int old = std::exchange(fd_, fd < 0 ? -1 : fd);
        if (old >= 0) ::close(old);
    }
    friend void swap(unique_fd& a, unique_fd& b) noexcept { std::swap(a.fd_, b.fd_); }

  private:
    int fd_ = -1;
};

}  // namespace kumiki::inline v0
