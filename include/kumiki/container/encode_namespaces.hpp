// The steps with which a child enters its namespaces or sets them up: root in its user namespace, the
// network namespace that is sent to it, its loopback interface, its clocks.
//
// What needs no more than one call stands where it is needed (encode.hpp).
#pragma once

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <chrono>
#include <string>

#include <kumiki/container/encoded_plan.hpp>
#include <kumiki/container/loopback.hpp>
#include <kumiki/container/plan.hpp>
#include <kumiki/container/spec.hpp>

namespace kumiki::inline v0::detail {

inline void encode_loopback(plan& to) {
    const slot fd = to.new_slot();
    to.call("lo", SYS_socket, {AF_INET, int{SOCK_DGRAM} | int{SOCK_CLOEXEC}, 0}).into(fd);
    to.call("lo", SYS_ioctl, {fd, SIOCSIFFLAGS, to.object(loopback_up())});
}

/// Takes on root in the new user namespace once the supervisor has written its maps.
inline void encode_user(plan& to, const encode_inputs& in, std::chrono::milliseconds limit) {
    if (!in.awaits_maps) return;
    to.begin(phase::user);
    to.call("the supervisor", SYS_sendto, {in.control, to.text("b"), 1, int{MSG_NOSIGNAL}, 0, 0});
    to.special(step_kind::await_byte, "the id maps", {in.control, limit.count()});
    to.call("root's group in the user namespace", SYS_setresgid, {0, 0, 0});
    to.call("root in the user namespace", SYS_setresuid, {0, 0, 0});
    if (in.caller.sets_groups)
        to.call("root's groups in the user namespace", SYS_setgroups, {0, 0});
    // The change of ids has made the memory undumpable, and with that the child's own files in
    // /proc the host root's. In shared memory this is the supervisor's flag: left as it was.
    if (::prctl(PR_GET_DUMPABLE) == 1)
        to.call("the child's files in /proc", SYS_prctl, {PR_SET_DUMPABLE, 1, 0, 0, 0});
}

inline void encode_clocks(plan& to, const container_spec& spec, operand proc) {
    if (!spec.time_namespace) return;
    const std::string text = to_text(*spec.time_namespace);
    const slot fd = to.new_slot();
    to.call("the time namespace", SYS_unshare, {sys::clone_newtime});
    to.call("the clock offsets", SYS_openat,
            {proc, to.text("self/timens_offsets"), O_WRONLY | O_CLOEXEC})
        .into(fd);
    to.call("the clock offsets", SYS_write, {fd, to.text(text), text.size()});
}

/// The network namespace that netns_maker sends.
inline void encode_netns(plan& to, const encode_inputs& in, std::chrono::milliseconds limit) {
    if (!in.receives_netns) return;
    to.begin(phase::netns);
    const slot netns = to.new_slot();
    to.special(step_kind::receive_slot, "the network namespace", {in.control, limit.count()})
        .into(netns);
    to.call("the network namespace", SYS_setns, {netns, sys::clone_newnet});
}

}  // namespace kumiki::inline v0::detail
