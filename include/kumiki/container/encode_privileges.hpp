// What a process may do, as steps: its label, Landlock's rules, capabilities, no_new_privs and the
// system call filter, in the order in which each is still allowed to be set.
//
// The bounding set goes while CAP_SETPCAP is there, groups before the user, then the capability
// sets, then no_new_privs, Landlock, and the filter last. Without no_new_privs these two need
// CAP_SYS_ADMIN, which goes after them: a user who is not root keeps it through the change of ids for
// that long. Securebits stay as they are, and the kernel forgets PR_SET_KEEPCAPS at the execve.
#pragma once

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <optional>
#include <string>

#include <kumiki/container/encode_filter.hpp>
#include <kumiki/container/named_user.hpp>
#include <kumiki/container/plan.hpp>
#include <kumiki/container/process_spec.hpp>
#include <kumiki/security/capability.hpp>
#include <kumiki/security/labels.hpp>
#include <kumiki/security/landlock.hpp>

namespace kumiki::inline v0::detail {

/// Adds the steps of a process's privileges.
class privileges_encoder {
  public:
    privileges_encoder(plan& to, const process_spec& process)
        : plan_(to), process_(process),
          filter_(to, process.filter ? *process.filter
                                     : default_seccomp_profile(process.capabilities)) {}

    filter_encoder& filter() noexcept { return filter_; }
    const filter_encoder& filter() const noexcept { return filter_; }

    /// Labels for the execve, through a procfs that no image has had a hand in: what `proc` names is
    /// crossed to no other mount and by no magic link. What the kernel then shows must be the label.
    void labels(operand proc) {
        if (!process_.apparmor_profile.empty())
            label(proc, label_kind::apparmor, process_.apparmor_profile);
        if (!process_.selinux_label.empty())
            label(proc, label_kind::selinux, process_.selinux_label);
    }

    /// Makes the ruleset, with paths as the process sees them: its root must be the container's.
    void make_landlock() {
        if (!process_.landlock) return;
        const landlock_payload made = prepare_landlock(*process_.landlock, landlock_abi());
        if (made.empty()) return;
        plan_.begin(phase::landlock);
        const slot ruleset = plan_.new_slot();
        plan_
            .call("the ruleset", sys::nr_landlock_create_ruleset,
                  {plan_.object(made.ruleset), sizeof made.ruleset, 0})
            .into(ruleset);
        for (const landlock_path& each : made.paths) {
            const char* path = plan_.text(each.path);
            plan_.special(
                step_kind::allow_path, path,
                {ruleset, plan_.object(allowed_path{
                              .path = path,
                              .rights = to_underlying(each.allow),
                              .file_rights = to_underlying(each.allow & landlock_file_rights)})});
        }
        for (const sys::landlock_net_port& each : made.ports)
            plan_.call(plan_.text("TCP port " + std::to_string(each.port)),
                       sys::nr_landlock_add_rule,
                       {ruleset, sys::landlock_rule_net_port, plan_.object(each), 0});
        ruleset_ = ruleset;
    }

    /// Before the ids change.
    void bound() {
        static const unsigned last = last_capability();
        for (const std::uint8_t drop : bounding_drops(process_.capabilities, last))
            plan_.call(plan_.text("bounding set without capability " + std::to_string(drop)),
                       SYS_prctl, {PR_CAPBSET_DROP, drop, 0, 0, 0});
    }
    /// Before the ids change, too; `named` is a user whom nobody knows yet.
    void keep(const std::optional<named_user>& named) {
        const bool root = !named && process_.user.user.value() == 0;
        const capability_set asked_for = process_.ambient | process_.inheritable;
        restricts_early_ = !process_.no_new_privs && (filter_ || ruleset_);
        keeps_ = !root && (restricts_early_ || !asked_for.empty());
        if (keeps_)
            plan_.call("the capabilities to keep", SYS_prctl, {PR_SET_KEEPCAPS, 1, 0, 0, 0});
    }
    /// After the ids have changed: the five sets.
    void capabilities(const std::optional<named_user>& named) {
        if (restricts_early_) {
            if (keeps_)
                set(named ? &named->shared->restricting
                          : plan_.object(make_capset(restricting_capabilities(
                                process_.capabilities_of(process_.user.user)))));
            restrict_for_good();
        }
        set(named ? &named->shared->capabilities
                  : plan_.object(make_capset(process_.capabilities_of(process_.user.user))));
        for (unsigned i = 0; i < 64; ++i)
            if (const auto one = capability_set::from_bits(process_.ambient.bits() & 1ULL << i);
                !one.empty())
                plan_.call(plan_.text("ambient " + to_string(one)), SYS_prctl,
                           {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0});
    }
    /// What comes last before the execve.
    void no_new_privileges() {
        if (!process_.no_new_privs) return;
        plan_.call("no_new_privs", SYS_prctl, {PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0});
        restrict_for_good();
    }

  private:
    void label(operand proc, label_kind kind, const std::string& wanted) {
        const label_payload made = prepare_label(kind, wanted);
        const char* shown = plan_.text(std::string(to_string(kind)) + " label " + wanted);
        const slot file = plan_.new_slot();
        plan_
            .call(shown, sys::nr_openat2,
                  {proc, plan_.text(made.file),
                   plan_.object(sys::open_how{.flags = O_RDWR | O_CLOEXEC,
                                              .resolve = sys::resolve_beneath |
                                                         sys::resolve_no_magiclinks |
                                                         sys::resolve_no_xdev}),
                   sizeof(sys::open_how)})
            .into(file);
        plan_.call(shown, SYS_write, {file, plan_.text(made.text), made.text.size()});
        plan_.special(step_kind::verify_text, shown,
                      {file, plan_.text(made.shown), made.shown.size()});
        plan_.call(shown, SYS_close, {file});
    }

    void set(const capset_payload* caps) {
        plan_.call("the capabilities", SYS_capset, {&caps->head, caps->data.data()});
    }

    void restrict_for_good() {
        if (ruleset_)
            plan_.call("the Landlock rules", sys::nr_landlock_restrict_self, {*ruleset_, 0});
        filter_.install();
    }

    plan& plan_;
    const process_spec& process_;
    filter_encoder filter_;
    std::optional<slot> ruleset_;
    bool restricts_early_ = false;
    bool keeps_ = false;
};

}  // namespace kumiki::inline v0::detail
