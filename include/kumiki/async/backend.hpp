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
    poll_many,     // as poll; may complete many times where the backend supports it
    read,          // data, length; at the file's position
    write,         // data, length
    receive,       // data, length, flags: MSG_...
    send,          // data, length, flags: MSG_...
    receive_message,  // data: msghdr, flags
    send_message,     // data: msghdr, flags
    accept,        // flags: SOCK_...
    open,          // fd: directory, data: path, flags: O_..., length: mode
    close,
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

/// For a dump.
constexpr const char* to_string(request_kind kind) noexcept {
    switch (kind) {
    case request_kind::poll:
    case request_kind::poll_many:
        return "poll";
    case request_kind::read:
        return "read";
    case request_kind::write:
        return "write";
    case request_kind::receive:
    case request_kind::receive_message:
        return "receive";
    case request_kind::send:
    case request_kind::send_message:
        return "send";
    case request_kind::accept:
        return "accept";
    case request_kind::open:
        return "open";
    case request_kind::close:
        return "close";
    case request_kind::connect:
        return "connect";
    case request_kind::wait_child:
        break;
    }
    return "wait for a child";
}

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
    /// Readable when wait() would find something, but for requests that were not handed over yet.
    /// Made at the first call.
    virtual int pollable_fd() = 0;
    /// Before the thread waits on it: true when wait() would find something now already.
    virtual bool has_news() noexcept = 0;
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

    /// The backend's result, which is the last of this request.
    virtual void complete(int result) noexcept { finish(result); }
    /// A result of poll_many after which others come.
    virtual void progress(int) noexcept {}
    const char* what() const noexcept override { return to_string(asked.kind); }
    int descriptor() const noexcept override { return asked.fd; }

  protected:
    int take_checked() { return operation::take_checked(what(), asked.fd); }
    void begin() override { through_->start(*this); }
    void cancel() noexcept override { through_->cancel(*this); }

  private:
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
