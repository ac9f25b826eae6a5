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

#include <cstdint>
#include <optional>
#include <source_location>
#include <string_view>

#include <kumiki/async/operations.hpp>
#include <kumiki/async/task.hpp>
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

inline task<sys::exit_status> wait_exit(event_loop& loop, bool ring_waits, int pidfd,
                                        std::source_location where) {
    backend& through = loop.through();
    if (ring_waits) {
        siginfo_t info{};
        wait_child_operation ended(loop, through,
                                   {.kind = request_kind::wait_child,
                                    .fd = pidfd,
                                    .flags = WEXITED | WNOWAIT,
                                    .data = &info},
                                   where);
        // A failure is no answer yet: somebody else's child ends too, and is refused below.
        if (const int result = co_await ended; result == 0)
            if (const auto status = sys::try_wait(pidfd)) co_return *status;
    }
    for (;;) {
        poll_operation ended(loop, through,
                             {.kind = request_kind::poll, .fd = pidfd, .flags = POLLIN}, where);
        co_await ended;
        if (const auto status = sys::try_wait(pidfd)) co_return *status;
    }
}

}  // namespace detail
}  // namespace kumiki::inline v0
