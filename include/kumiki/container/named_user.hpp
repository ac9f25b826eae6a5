// A user by name: found in the passwd and group files of the container itself, as the container will
// see them, mounts and layers included.
//
// The child opens both files inside its root and hands them over; the supervisor reads them, and
// writes the ids into memory that the child shares, whose later steps take them from there. The
// files are an image's and not to be trusted: only regular ones of at most 4 MiB are read.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include <kumiki/container/plan.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/security/capability.hpp>
#include <kumiki/security/user.hpp>
#include <kumiki/sys/abi.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0::detail {

/// What the child takes from shared memory because nobody knew it when the plan was made.
struct late_identity {
    capset_payload capabilities;
    capset_payload restricting;  ///< while Landlock and the filter take CAP_SYS_ADMIN
    std::uint32_t groups[most_groups];
};

/// What a process that comes to `sets` has while it still needs CAP_SYS_ADMIN.
inline process_capabilities restricting_capabilities(const process_capabilities& sets) {
    const capability_set held = sets.permitted | sets.inheritable | capability::sys_admin;
    return {.bounding = sets.bounding, .effective = held, .permitted = held};
}

/// The plan's side of a user who is known by name.
struct named_user {
    user_request request;
    process_capabilities of_root{};
    process_capabilities of_others{};
    late_identity* shared = nullptr;
    slot user{};
    slot group{};
    slot group_count{};

    /// The child hands over the files that there are ('p', 'q'), and asks for the ids ('u').
    void ask(plan& to, operand root, int control) const {
        const sys::open_how* how =
            to.object(sys::open_how{.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
                                    .resolve = sys::resolve_in_root | sys::resolve_no_magiclinks});
        const slot file = to.new_slot();
        for (const auto& [path, byte] : {std::pair{"etc/passwd", 'p'}, {"etc/group", 'q'}}) {
            const char* shown = to.text("/" + std::string(path));
            to.call(shown, sys::nr_openat2, {root, to.text(path), how, sizeof *how})
                .into(file)
                .tolerate(ENOENT, 2);
            to.special(step_kind::send_slot, shown, {control, file, byte});
            to.call(shown, SYS_close, {file});
        }
        to.call("the supervisor", SYS_sendto, {control, to.text("u"), 1, int{MSG_NOSIGNAL}, 0, 0});
    }
};

/// The supervisor's side: what the child has handed over, up to the answer.
class user_lookup {
  public:
    explicit user_lookup(const named_user& wanted) : wanted_(wanted) {}

    void take_passwd(unique_fd file) { passwd_ = std::move(file); }
    void take_group(unique_fd file) { group_ = std::move(file); }

    /// Writes the ids where the child's steps look for them.
    /// Errors: invalid_input for a name that is not there, or a file that is none.
    void answer(child_report& report) {
        const resolved_user found = resolve_user(wanted_.request, text_of(passwd_, "/etc/passwd"),
                                                 text_of(group_, "/etc/group"));
        late_identity& to = *wanted_.shared;
        const auto& sets = found.ids.user.value() == 0 ? wanted_.of_root : wanted_.of_others;
        to.capabilities = make_capset(sets);
        to.restricting = make_capset(restricting_capabilities(sets));
        std::size_t count = 0;
        for (const group_id& each : found.ids.groups) to.groups[count++] = each.value();
        const auto put = [&](slot where, std::uint32_t value) {
            report.slots[static_cast<std::size_t>(where)] = static_cast<long>(value);
        };
        put(wanted_.user, found.ids.user.value());
        put(wanted_.group, found.ids.group.value());
        put(wanted_.group_count, static_cast<std::uint32_t>(count));
    }

  private:
    static std::string text_of(const unique_fd& file, const char* path) {
        if (!file) return {};
        const auto refuse = [&](const char* why) { throw invalid_input("user", path, why); };
        // Nor one of the kernel's, whose reading can have effects: /proc/kmsg empties the log.
        const long on = sys::filesystem_magic(file.get());
        if (!S_ISREG(sys::status_of(file.get()).st_mode) || on == sys::proc_super_magic ||
            on == sys::sysfs_magic)
            refuse("In the container it is no regular file.");
        std::string text;
        char buffer[8192];
        for (;;) {
            const auto size =
                sys::check(sys::retry([&] { return ::read(file.get(), buffer, sizeof buffer); }),
                           "read", path);
            if (size == 0) return text;
            text.append(buffer, static_cast<std::size_t>(size));
            if (text.size() > largest_user_file) refuse("It must not be larger than 4 MiB.");
        }
    }

    named_user wanted_;
    unique_fd passwd_;
    unique_fd group_;
};

}  // namespace kumiki::inline v0::detail
