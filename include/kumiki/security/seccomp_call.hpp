// seccomp_call: a system call that waits for an answer, because a notify rule of its filter has met
// it, and the answers.
//
// What the arguments point to belongs to the caller, who can change it while his call waits: to look
// at memory and then allow() decides nothing (seccomp_unotify(2)). What is to be refused for sure is
// refused by a rule, or done here on the caller's behalf with a copy of what was read.
// Kernel: 5.0; allow() 5.5, descriptors 5.9 (in one piece with the answer 5.14). Left out: writing to
// the caller's memory.
#pragma once

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/security/seccomp_compiler.hpp>
#include <kumiki/security/syscall_table.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// How large this kernel's structures are: it writes all of its own, and wants all of them zero.
inline seccomp_notif_sizes notification_sizes() noexcept {
    static const seccomp_notif_sizes sizes = [] {
        seccomp_notif_sizes found{};
        ::syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &found);
        found.seccomp_notif = std::max<__u16>(found.seccomp_notif, sizeof(seccomp_notif));
        found.seccomp_notif_resp =
            std::max<__u16>(found.seccomp_notif_resp, sizeof(seccomp_notif_resp));
        return found;
    }();
    return sizes;
}

}  // namespace detail

/// A system call that waits. Move-only; belongs to one thread.
///
/// Every answer yields false when the call does not wait any more: its caller was killed, a signal has
/// interrupted it, or it was answered before.
/// Lifetime: destroyed without an answer it is denied with EPERM. It keeps the listener open.
class seccomp_call {
  public:
    /// Takes the next call that waits at `listener`; nothing when its caller is gone meanwhile. Waits
    /// unless poll(2) has told of POLLIN and nobody else reads from it (seccomp_listener.hpp).
    static std::optional<seccomp_call> receive(std::shared_ptr<const unique_fd> listener) {
        const std::size_t size = detail::notification_sizes().seccomp_notif;
        std::vector<std::byte> memory(size);
        const int result = sys::retry([&] {
            std::ranges::fill(memory, std::byte{0});
            return ::ioctl(listener->get(), SECCOMP_IOCTL_NOTIF_RECV, memory.data());
        });
        if (result < 0 && errno == ENOENT) return std::nullopt;
        sys::check(result, "receive", "a system call that waits");
        seccomp_notif notification;
        std::memcpy(&notification, memory.data(), sizeof notification);
        return seccomp_call(std::move(listener), notification);
    }

    seccomp_call(seccomp_call&& other) noexcept
        : listener_(std::move(other.listener_)), told_(other.told_) {}
    seccomp_call& operator=(seccomp_call&& other) noexcept {
        seccomp_call old(std::move(*this));
        listener_ = std::move(other.listener_);
        told_ = other.told_;
        return *this;
    }
    ~seccomp_call() {
        if (listener_) send({.id = told_.id, .val = 0, .error = -EPERM, .flags = 0});
    }

    /// The thread that calls, numbered as this process sees it.
    pid_t pid() const noexcept { return static_cast<pid_t>(told_.pid); }
    /// The call's number, in the ABI of architecture().
    int number() const noexcept { return told_.data.nr; }
    /// "mount"; empty for a number without a name and for another architecture's.
    std::string_view name() const noexcept {
        return architecture() == detail::seccomp_architecture ? syscall_name(number())
                                                              : std::string_view{};
    }
    /// AUDIT_ARCH_* of <linux/audit.h>.
    std::uint32_t architecture() const noexcept { return told_.data.arch; }
    /// Argument `index`, 0 to 5, as it was in its register.
    std::uint64_t argument(std::size_t index) const {
        return std::span<const __u64, 6>(told_.data.args)[index];
    }
    /// Where in the caller's code the call was made.
    std::uint64_t instruction_pointer() const noexcept { return told_.data.instruction_pointer; }
    /// The kernel's name for this waiting; never used twice for one listener.
    std::uint64_t id() const noexcept { return told_.id; }

    /// True while the call waits. What was found out about pid() before is then about the caller.
    bool still_valid() const {
        if (!listener_) return false;
        const std::uint64_t id = told_.id;
        return found(::ioctl(listener_->get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &id), "look at");
    }

    /// The call is made as if there were no rule. It reads its arguments' memory anew: see above.
    /// Other filters of the caller, and all that else is checked, still count. Kernel: 5.5.
    bool allow() {
        return answer(
            {.id = told_.id, .val = 0, .error = 0, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE});
    }
    /// The call is not made and fails with `code`. Errors: invalid_input unless it is 1 to 4095.
    bool deny(int code) {
        if (code < 1 || code > 4095)
            throw invalid_input("errno", std::to_string(code), "It must be from 1 to 4095.");
        return answer({.id = told_.id, .val = 0, .error = -code, .flags = 0});
    }
    /// The call is not made and returns `result`.
    bool value(std::int64_t result) {
        return answer({.id = told_.id, .val = result, .error = 0, .flags = 0});
    }

    /// The caller gets a copy of `fd`, under its lowest free number, which the call returns; yields
    /// that number. `flags`: O_CLOEXEC or 0. Kernel: 5.9. Before 5.14 a caller who is interrupted in
    /// between keeps the descriptor and calls again.
    /// Errors: invalid_input for other flags; EBADF; EMFILE when the caller may have no more. The call
    /// then still waits.
    std::optional<int> inject(int fd, unsigned flags = O_CLOEXEC) {
        try {
            const auto number = add({.id = told_.id,
                                     .flags = SECCOMP_ADDFD_FLAG_SEND,
                                     .srcfd = static_cast<std::uint32_t>(fd),
                                     .newfd = 0,
                                     .newfd_flags = flags});
            listener_.reset();
            return number;
        } catch (const error& failure) {
            if (failure.errno_value() != EINVAL) throw;
        }
        return inject_in_two_steps(fd, flags);
    }
    /// The caller's descriptor `number` becomes a copy of `fd`, as by dup2(2). The call still waits.
    /// Errors: as inject(); EBADF also for a `number` that the caller may not have.
    bool replace(int number, int fd, unsigned flags = O_CLOEXEC) {
        return add({.id = told_.id,
                    .flags = SECCOMP_ADDFD_FLAG_SETFD,
                    .srcfd = static_cast<std::uint32_t>(fd),
                    .newfd = static_cast<std::uint32_t>(number),
                    .newfd_flags = flags})
            .has_value();
    }

    /// Copies the caller's memory from `address` on; false when not all of it is there, or when the
    /// call does not wait any more. Errors: EPERM without the right to look into the caller.
    bool read_memory(std::uint64_t address, std::span<std::byte> into) const {
        return read_some(address, into) == into.size() && still_valid();
    }
    /// The text at `address` up to its NUL, of at most `most` bytes; nothing when there is none, or
    /// when the call does not wait any more. A path is relative to the caller's own root and working
    /// directory. Errors: as read_memory().
    std::optional<std::string> read_text(std::uint64_t address, std::size_t most = 4096) const {
        std::string text;
        while (text.size() < most) {
            // Not over the end of a page, which may be the last one.
            char part[4096];
            const std::uint64_t from = address + text.size();
            const std::size_t room = std::min<std::size_t>(
                {sizeof part, most - text.size(), std::size_t{4096} - from % 4096});
            const std::size_t size =
                read_some(from, std::as_writable_bytes(std::span(part)).first(room));
            const std::string_view got(part, size);
            const auto end = got.find('\0');
            text.append(got.substr(0, end));
            if (end != std::string_view::npos) {
                if (!still_valid()) return std::nullopt;
                return text;
            }
            if (size == 0) break;
        }
        return std::nullopt;
    }

    /// inject() as kernels before 5.14 can do it.
    std::optional<int> inject_in_two_steps(int fd, unsigned flags = O_CLOEXEC) {
        const auto number = add({.id = told_.id,
                                 .flags = 0,
                                 .srcfd = static_cast<std::uint32_t>(fd),
                                 .newfd = 0,
                                 .newfd_flags = flags});
        if (!number || !value(*number)) return std::nullopt;
        return number;
    }

  private:
    seccomp_call(std::shared_ptr<const unique_fd> listener, const seccomp_notif& told) noexcept
        : listener_(std::move(listener)), told_(told) {}

    /// False for a call that does not wait any more.
    static bool found(int result, const char* operation) {
        if (result < 0 && (errno == ENOENT || errno == EINPROGRESS)) return false;
        sys::check(result, operation, "a system call that waits");
        return true;
    }
    int send(const seccomp_notif_resp& response) const noexcept {
        // The kernel's own may be larger than what is known here; 64 bytes are more than it will be.
        alignas(seccomp_notif_resp) std::array<std::byte, 64> memory{};
        std::memcpy(memory.data(), &response, sizeof response);
        return sys::retry(
            [&] { return ::ioctl(listener_->get(), SECCOMP_IOCTL_NOTIF_SEND, memory.data()); });
    }
    bool answer(const seccomp_notif_resp& response) {
        if (!listener_) return false;
        const bool there = found(send(response), "answer");
        listener_.reset();
        return there;
    }
    /// Waits, shortly, until the caller has taken the descriptor.
    std::optional<int> add(seccomp_notif_addfd request) const {
        if ((request.newfd_flags & ~static_cast<unsigned>(O_CLOEXEC)) != 0)
            throw invalid_input("descriptor flags", std::to_string(request.newfd_flags),
                                "They are O_CLOEXEC or nothing.");
        if (!listener_) return std::nullopt;
        const int number = sys::retry(
            [&] { return ::ioctl(listener_->get(), SECCOMP_IOCTL_NOTIF_ADDFD, &request); });
        if (!found(number, "give a descriptor to")) return std::nullopt;
        return number;
    }
    std::size_t read_some(std::uint64_t address, std::span<std::byte> into) const {
        const iovec here{into.data(), into.size()};
        const iovec there{reinterpret_cast<void*>(static_cast<std::uintptr_t>(address)),
                          into.size()};
        const auto size = ::process_vm_readv(pid(), &here, 1, &there, 1, 0);
        if (size < 0 && (errno == EFAULT || errno == ESRCH)) return 0;
        sys::check(size, [] {
            return error_context{.operation = "read",
                                 .object = "the memory of a caller that waits",
                                 .remedy = errno == EPERM ? "It takes CAP_SYS_PTRACE in the "
                                                            "caller's user namespace."
                                                          : ""};
        });
        return static_cast<std::size_t>(size);
    }

    std::shared_ptr<const unique_fd> listener_;  // none: answered
    seccomp_notif told_;
};

}  // namespace kumiki::inline v0
