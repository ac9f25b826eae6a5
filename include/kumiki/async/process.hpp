// Waiting for the end of a child process by its pidfd.
//
// A poll on the pidfd (Linux 5.3), then waitid(2): works on every kernel and with both backends.
// IORING_OP_WAITID (6.7) takes the place of the poll where it was probed; because of a use after
// free in its cancellation (CVE-2025-40047), before 6.18 only when it is asked for. It does not
// yield what the process used, so waitid(2) has the last word either way.
#pragma once

#include <poll.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <exception>
#include <optional>
#include <source_location>
#include <string_view>
#include <utility>

#include <kumiki/async/event_loop.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace kumiki::inline v0 {

/// How a scheduler waits for children.
enum class child_wait : std::uint8_t {
    automatic,  ///< the ring's own wait where it is there and sound, else poll
    poll,       ///< a poll on the pidfd
    waitid,     ///< IORING_OP_WAITID wherever it was probed, else poll
};

namespace detail {

/// True when `release` (uname -r) is 6.18 or later: IORING_OP_WAITID is mended there for sure.
constexpr bool waitid_is_sound(std::string_view release) noexcept {
    const auto major = next_field(release, '.');
    const auto end = release.find_first_not_of("0123456789");
    const auto first = major ? parse_number<unsigned>(*major) : std::nullopt;
    const auto second = parse_number<unsigned>(release.substr(0, end));
    return first && second && (*first > 6 || (*first == 6 && *second >= 18));
}

/// Whether the ring waits for children, as far as the kernel and the caller agree.
inline bool ring_waits_for_children(backend& through, child_wait way) noexcept {
    if (way == child_wait::poll || !through.supports(request_kind::wait_child)) return false;
    utsname name{};
    return way == child_wait::waitid ||
           (::uname(&name) == 0 && waitid_is_sound(static_cast<const char*>(name.release)));
}

/// Yields how a child ended. Its status is collected as soon as the kernel tells of the end.
class [[nodiscard]] exit_operation : public io_operation, private timer {
  public:
    exit_operation(event_loop& loop, bool ring_waits, int pidfd, std::source_location where)
        : io_operation(loop, loop.through(), {.fd = pidfd, .flags = POLLIN}, where) {
        if (ring_waits) asked.kind = request_kind::wait_child;
    }
    exit_operation(exit_operation&& other) noexcept : io_operation(std::move(other)) {}
    ~exit_operation() { abandon(); }

    sys::exit_status await_resume() {
        take_checked();
        if (failed_) std::rethrow_exception(std::move(failed_));
        return status_;
    }
    const char* what() const noexcept override { return "wait for a child"; }
    void complete(int result) noexcept override {
        if (asked.kind == request_kind::poll && result < 0) return finish(result);
        // The ring's own wait does not tell what the process used, and where it failed the process
        // may be somebody else's child, who is waited for all the same and refused at its end.
        try {
            if (const auto ended = result < 0 ? std::nullopt : sys::try_wait(asked.fd)) {
                status_ = *ended;
                return finish(0);
            }
        } catch (...) {
            failed_ = std::current_exception();
            return finish(0);
        }
        if (cancel_requested()) return finish(-ECANCELED);
        const bool held = std::exchange(asked.kind, request_kind::poll) == request_kind::poll;
        // It has ended, but its tracer holds it: nothing tells when that lets go.
        events().timers().insert(*this, clock::now() + std::chrono::milliseconds(held ? 5 : 0));
        is_pausing_ = true;
    }

  private:
    event_loop& events() noexcept { return static_cast<event_loop&>(loop()); }
    void begin() override {
        if (asked.kind == request_kind::wait_child) {
            asked.flags = WEXITED | WNOWAIT;
            asked.data = &info_;
        } else {
            asked.flags = POLLIN;
        }
        io_operation::begin();
    }
    void cancel() noexcept override {
        if (!is_pausing_) return io_operation::cancel();
        events().timers().erase(*this);
        finish(-ECANCELED);
    }
    void on_time() noexcept override {
        is_pausing_ = false;
        try {
            begin();
        } catch (...) {
            failed_ = std::current_exception();
            finish(0);
        }
    }

    siginfo_t info_{};
    sys::exit_status status_;
    std::exception_ptr failed_;
    bool is_pausing_ = false;
};

}  // namespace detail
}  // namespace kumiki::inline v0
