// Where the library says what it may neither print nor throw: a release that failed in a
// destructor, a fallback that was taken, a setting of the host that had to be changed.
//
// One observer a process, none by default. It is called on the thread on which the thing happened,
// also from destructors: it must not throw and should not wait.
#pragma once

#include <atomic>
#include <string_view>

#include <kumiki/core/error.hpp>

namespace kumiki::inline v0 {

/// Told of what happens beside the calls that return or throw. Override what is of interest.
class observer {
  public:
    observer() = default;
    observer(const observer&) = delete;
    observer& operator=(const observer&) = delete;
    virtual ~observer() = default;
    /// Something could not be released; the release of the rest goes on.
    virtual void release_failed(const error&) noexcept {}
    /// Something a person may want to know: "io_uring is denied (EPERM): using epoll".
    virtual void notice(std::string_view) noexcept {}
};

namespace detail {
inline std::atomic<observer*> current_observer{nullptr};
}

/// Makes `next` the process's observer (null: none) and returns the one before.
/// Lifetime: `next` must outlive its being set.
inline observer* set_observer(observer* next) noexcept {
    return detail::current_observer.exchange(next);
}

namespace detail {

inline void report_release_failure(const error& failure) noexcept {
    if (observer* to = current_observer.load()) to->release_failed(failure);
}

inline void report_notice(std::string_view text) noexcept {
    if (observer* to = current_observer.load()) to->notice(text);
}

/// Runs a release that must not throw; an error is told to the observer.
template <class Function>
void release_quietly(Function&& function) noexcept {
    try {
        function();
    } catch (const error& failure) {
        report_release_failure(failure);
    } catch (...) {
        report_notice("a release failed with an exception that is not a kumiki::error");
    }
}

}  // namespace detail
}  // namespace kumiki::inline v0
