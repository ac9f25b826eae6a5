// Pressure (PSI) of a group: read at once, and triggers that tell when it has become too much. The
// numbers are those of pressure_counts.hpp.
//
// The kernel measures by itself and tells through poll: nothing here polls by time. A trigger tells
// at most once in each window. Kernel: 4.20, triggers 5.2 (for unprivileged users 6.5, with windows
// of 2 s or a multiple), irq 6.1. Source: Documentation/accounting/psi.rst.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/stream.hpp>
#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/pressure_counts.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// The group's pressure; nothing when the kernel does not measure it, or the group is gone.
inline std::optional<pressure> read_pressure(const cgroup& group, pressure_resource resource) {
    try {
        const auto text = group.try_read(std::string(pressure_key(resource)));
        return text ? std::optional(parse_pressure(*text)) : std::nullopt;
    } catch (const error& failure) {
        if (failure.errno_value() == EOPNOTSUPP) return std::nullopt;  // psi=0
        throw;
    }
}

/// When a trigger tells: waits of `threshold` or more within `window`.
struct pressure_trigger {
    pressure_resource resource = pressure_resource::memory;
    bool full = false;  ///< all processes wait, not only some; of irq there is only this
    std::chrono::microseconds threshold{std::chrono::milliseconds(200)};
    std::chrono::microseconds window{std::chrono::seconds(2)};  ///< 500 ms to 10 s
};

/// A trigger that is set; it ends with its handle.
class pressure_watch {
  public:
    /// Errors: invalid_input; unsupported without PSI; EACCES without write access to the file.
    pressure_watch(const cgroup& group, const pressure_trigger& trigger)
        : path_(group.path() + '/' + std::string(pressure_key(trigger.resource))) {
        using namespace std::chrono_literals;
        const auto refuse = [](std::string_view what, std::chrono::microseconds value,
                               const char* why) {
            throw invalid_input(what, std::to_string(value.count()) + " us", why);
        };
        if (trigger.window < 500ms || trigger.window > 10s)
            refuse("pressure window", trigger.window, "It must be from 500 ms to 10 s.");
        if (trigger.threshold <= 0us || trigger.threshold > trigger.window)
            refuse("pressure threshold", trigger.threshold,
                   "It must be more than nothing and at most the window.");
        const std::string key(pressure_key(trigger.resource));
        auto file = sys::try_open_at(group.fd(), key, O_RDWR | O_NONBLOCK);
        if (!file) throw_unsupported(ENOENT);
        file_ = std::move(*file);
        const std::string text = (trigger.full ? "full " : "some ") +
                                 std::to_string(trigger.threshold.count()) + ' ' +
                                 std::to_string(trigger.window.count());
        // With its closing NUL, as the kernel wants it.
        const auto written =
            sys::retry([&] { return ::write(file_.get(), text.c_str(), text.size() + 1); });
        if (written < 0 && (errno == EOPNOTSUPP || errno == ENODEV)) throw_unsupported(errno);
        sys::check(written, [&] {
            return error_context{.operation = "write '" + text + "' to",
                                 .object = path_,
                                 .remedy = errno == EINVAL
                                               ? "Without CAP_SYS_RESOURCE the window must be a "
                                                 "multiple of 2 s (6.5); of irq there is the "
                                                 "line 'full' alone."
                                               : detail::write_remedy(errno, key)};
        });
    }

    /// POLLPRI when the trigger tells, POLLERR for good when the group has been removed.
    int fd() const noexcept { return file_.get(); }

  private:
    [[noreturn]] void throw_unsupported(int code) const {
        throw unsupported(code, {.operation = "set a pressure trigger on",
                                 .object = path_,
                                 .remedy = "The group is gone, or the kernel does not measure "
                                           "this pressure (CONFIG_PSI, psi=1, cgroup.pressure)."});
    }

    std::string path_;
    unique_fd file_;
};

namespace detail {

template <class = void>
inline stream<pressure> watch_trigger(scheduler& io, pressure_watch watch) {
    for (;;) {
        const unsigned seen = co_await io.poll(watch.fd(), POLLPRI);
        if ((seen & POLLERR) != 0U) co_return;
        char text[512];
        const auto size = ::pread(watch.fd(), text, sizeof text, 0);
        if (size <= 0) co_return;
        co_yield parse_pressure(std::string_view(text, static_cast<std::size_t>(size)));
    }
}

}  // namespace detail

/// The group's pressure each time that the trigger tells; ends with the group.
/// Errors: as pressure_watch.
template <class = void>
inline stream<pressure> watch_pressure(scheduler& io, const cgroup& group,
                                       const pressure_trigger& trigger) {
    return detail::watch_trigger(io, pressure_watch(group, trigger));
}

}  // namespace kumiki::inline v0
