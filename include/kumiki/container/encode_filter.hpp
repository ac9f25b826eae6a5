// The system call filter as steps, and the way of its listener to the supervisor when it has rules
// that ask there.
//
// A filter with such rules is installed in two parts (seccomp_notify.hpp): from the first on the
// supervisor can answer what the rest of the start calls, and only the second refuses anything. The
// listener is sent over the control socket, or, where sending would itself be asked about, fetched by
// the supervisor from the child's table (pidfd_getfd(2), 5.6). Kernel: seccomp(2).
#pragma once

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include <kumiki/container/plan.hpp>
#include <kumiki/security/seccomp.hpp>
#include <kumiki/security/seccomp_notify.hpp>

namespace kumiki::inline v0::detail {

/// Adds the steps that install one filter.
class filter_encoder {
  public:
    filter_encoder(plan& to, std::shared_ptr<const seccomp_program> program)
        : plan_(to), program_(std::move(program)) {}

    /// Over `control` the supervisor is spoken to, and waited for at most `limit`.
    void speak_over(int control, std::chrono::milliseconds limit) {
        control_ = control;
        limit_ = limit;
    }
    explicit operator bool() const noexcept { return program_ != nullptr; }

    void install() {
        if (!program_) return;
        plan_.begin(phase::seccomp);
        if (!program_->notifies()) {
            add("the system call filter", *program_, 0);
            return;
        }
        const slot listener = plan_.new_slot();
        const char* shown = "the filter's listener";
        add(shown, only_notifying(*program_), seccomp_listener_flags());
        plan_.into(listener);
        if (choose_handover(*program_) == listener_handover::sent) {
            plan_.special(step_kind::send_slot, shown, {control_, listener, 'l'});
        } else {
            listener_ = listener;
            plan_.call(shown, SYS_write, {control_, plan_.text("f"), 1});
            plan_.special(step_kind::await_byte, shown, {control_, limit_.count()});
        }
        add("the system call filter", without_notifying(*program_), 0);
    }
    /// Where the listener is, when the supervisor is to fetch it.
    const std::optional<slot>& fetched_listener() const noexcept { return listener_; }

  private:
    void add(const char* shown, const seccomp_program& program, unsigned long flags) {
        const auto code = program.instructions();
        const sock_fprog view{static_cast<unsigned short>(code.size()),
                              plan_.array(code.data(), code.size())};
        plan_.call(shown, SYS_seccomp, {SECCOMP_SET_MODE_FILTER, flags, plan_.object(view)});
    }

    plan& plan_;
    std::shared_ptr<const seccomp_program> program_;
    std::optional<slot> listener_;
    int control_ = -1;
    std::chrono::milliseconds limit_{0};
};

}  // namespace kumiki::inline v0::detail
