// The one currency of failure: kumiki::error, a std::system_error that also knows which operation
// failed, in which step, on which object (path, interface, key), from where it was called, and what
// a person can do about it.
//
// What is an answer and not a failure (not there, would block, cancelled) is an optional, an enum
// or a type of its own and never one of these.
#pragma once

#include <cerrno>
#include <cstring>
#include <source_location>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace kumiki::inline v0 {

/// The symbolic name of an errno value ("EPERM"), or "errno 4711" for one the libc does not know.
inline std::string errno_name(int code) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 32)
    if (const char* name = ::strerrorname_np(code)) return name;
#endif
    return "errno " + std::to_string(code);
}

/// What an error says beside its errno. Every field may be empty.
struct error_context {
    std::string operation{};  ///< what was attempted: "mount", "open", "parse port"
    std::string object{};  ///< on what: "proc on /proc", "/sys/fs/cgroup/web/memory.max", "'80:x'"
    std::string step{};  ///< the step of a start that contains it: "rootfs", "network"
    std::string container{};  ///< the container's name, once there is one
    std::string remedy{};  ///< what to do about it: full sentences
};

/// Every failure that kumiki throws. Copying one does not throw away its text.
class error : public std::system_error {
  public:
    /// Builds the message from `context` and `code` (an errno value; 0 says that the kernel was not
    /// asked: the message then carries no errno).
    error(int code, error_context context,
          std::source_location where = std::source_location::current())
        : std::system_error(code != 0 ? code : EINVAL, std::system_category()),
          context_(std::move(context)), errno_(code), where_(where), message_(render()) {}

    const char* what() const noexcept override { return message_.c_str(); }
    /// The errno value of the failed call; 0 when the input was refused before the kernel was asked.
    int errno_value() const noexcept { return errno_; }
    const std::string& operation() const noexcept { return context_.operation; }
    const std::string& object() const noexcept { return context_.object; }
    const std::string& step() const noexcept { return context_.step; }
    const std::string& remedy() const noexcept { return context_.remedy; }
    const error_context& context() const noexcept { return context_; }
    /// Where in the calling program the failed operation was asked for.
    const std::source_location& where() const noexcept { return where_; }

    /// Fills in what a caller further out knows; what is already set stays as it is.
    void add_context(const error_context& outer) {
        if (context_.step.empty()) context_.step = outer.step;
        if (context_.container.empty()) context_.container = outer.container;
        if (context_.remedy.empty()) context_.remedy = outer.remedy;
        message_ = render();
    }

  private:
    std::string render() const {
        std::string text = context_.operation;
        if (!context_.object.empty()) text += (text.empty() ? "" : " ") + context_.object;
        if (!context_.step.empty() || !context_.container.empty()) {
            text += " (";
            if (!context_.step.empty()) text += "step " + context_.step;
            if (!context_.step.empty() && !context_.container.empty()) text += ", ";
            if (!context_.container.empty()) text += "container " + context_.container;
            text += ")";
        }
        if (errno_ != 0) text += ": " + errno_name(errno_) + " (" + code().message() + ")";
        if (!context_.remedy.empty()) text += (errno_ != 0 ? ". " : ": ") + context_.remedy;
        return text;
    }

    error_context context_;
    int errno_;
    std::source_location where_;
    std::string message_;
};

/// A value that the caller gave is not acceptable: found before anything was done.
class invalid_input : public error {
  public:
    /// `what` names the thing ("port"), `value` the text that was refused, `why` the reason.
    invalid_input(std::string_view what, std::string_view value, std::string_view why,
                  std::source_location where = std::source_location::current())
        : error(0,
                // append() and not "'" + std::string(): g++ 12 warns of that at -O2 (PR105651)
                {.operation = std::string("invalid ").append(what),
                 .object = std::string("'").append(value).append("'"),
                 .step = {},
                 .container = {},
                 .remedy = std::string(why)},
                where) {}
};

/// This host cannot do it: a kernel too old, a controller or module missing, a privilege not held.
class unsupported : public error {
  public:
    using error::error;
};

}  // namespace kumiki::inline v0
