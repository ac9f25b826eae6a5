// What a scheduler asks of the kernel, in terms that io_uring and epoll can both carry out.
//
// A request is plain data; a backend turns it into a submission or into a non-blocking system call
// and a readiness event. The tests run every operation on both.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <source_location>

#include <kumiki/async/operation.hpp>

namespace kumiki::inline v0 {

/// How a scheduler waits for the kernel.
enum class io_backend : std::uint8_t {
    automatic,  ///< io_uring where the host allows it, else epoll
    io_uring,   ///< io_uring; creating the scheduler fails where it is denied
    epoll,      ///< epoll and non-blocking system calls
};

/// "io_uring", "epoll", "automatic".
constexpr const char* to_string(io_backend which) noexcept {
    switch (which) {
    case io_backend::io_uring:
        return "io_uring";
    case io_backend::epoll:
        return "epoll";
    case io_backend::automatic:
        break;
    }
    return "automatic";
}

namespace detail {

enum class request_kind : std::uint8_t {
    poll,          // flags: POLLIN ...
    read,          // data, length; at the file's position
    write,         // data, length
    receive,       // data, length, flags: MSG_...
    send,          // data, length, flags: MSG_...
    receive_message,  // data: msghdr, flags
    send_message,     // data: msghdr, flags
    accept,        // flags: SOCK_...
    connect,       // data: sockaddr, length
    wait_child,    // fd: pidfd, data: siginfo_t, flags: WEXITED ...
};

/// How far a request has got that takes more than one step.
enum class request_stage : std::uint8_t {
    first,   // not tried yet
    polled,  // the descriptor is being polled
    again,   // tried after the poll
};

struct request {
    request_kind kind = request_kind::poll;
    request_stage stage = request_stage::first;
    int fd = -1;
    unsigned flags = 0;
    void* data = nullptr;
    std::size_t length = 0;
};

class io_operation;

class backend {
  public:
    backend() = default;
    backend(const backend&) = delete;
    backend& operator=(const backend&) = delete;
    virtual ~backend() = default;
    virtual bool supports(request_kind kind) const noexcept = 0;
    /// The operation is in flight, or finished, when this returns.
    virtual void start(io_operation& of) = 0;
    virtual void cancel(io_operation& of) noexcept = 0;
    /// Finishes what the kernel has completed; waits for the first for as long as `limit` says:
    /// zero not at all, nothing without a limit. Also returns when the remote queue has work.
    virtual void wait(std::optional<std::chrono::nanoseconds> limit) = 0;
};

/// One request in flight.
class io_operation : public operation {
  public:
    io_operation(loop_core& loop, backend& through, request what,
                 std::source_location where) noexcept
        : operation(loop, where), asked(what), through_(&through) {}
    io_operation(io_operation&& other) noexcept = default;
    ~io_operation() { abandon(); }

    request asked;
    io_operation* next_on_fd = nullptr;  // in a list of the backend's

  protected:
    int take_checked(const char* name) { return operation::take_checked(name, asked.fd); }

  private:
    void begin() override { through_->start(*this); }
    void cancel() noexcept override { through_->cancel(*this); }
    void drain() noexcept override {
        try {
            while (in_flight()) through_->wait(std::nullopt);
        } catch (...) {
            fatal("the kernel did not say that an operation is over: its memory cannot be freed");
        }
    }

    backend* through_;
};

}  // namespace detail
}  // namespace kumiki::inline v0
