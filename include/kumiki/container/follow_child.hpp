// What is said over the control socket while a child is on its way to its execve, and how it went.
//
// The control socket carries single bytes: from the child 'b' (it is there, where it needs id maps),
// 't' with a descriptor (its terminal), 'p' and 'q' with its passwd and group files, 'u' (it asks
// whose ids a user's name stands for), 'l' with its filter's listener or 'f' (it waits until that was
// fetched); to the child 'n' with its network namespace, and
// 'g' at each step that waits. The child's end closes at its execve, or with its death: the report
// says which. An init keeps it: 'x' and a byte, errno or 0, say how the execve of its payload went,
// and its last word is for later (init.hpp).
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <kumiki/async/offload.hpp>
#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/container/child_process.hpp>
#include <kumiki/container/container_parts.hpp>
#include <kumiki/container/named_user.hpp>
#include <kumiki/container/start_calls.hpp>
#include <kumiki/container/start_error.hpp>
#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/moved_link.hpp>
#include <kumiki/ns/namespace_fd.hpp>
#include <kumiki/ns/subordinate_ids.hpp>
#include <kumiki/ns/user_namespace.hpp>

namespace kumiki::inline v0::detail {

/// What the supervisor does to a container's network namespace.
struct network_work {
    std::optional<endpoint_reservation> reservation{};
    moved_devices devices{};

    bool is_none() const noexcept { return !reservation && devices.all.empty(); }
};

/// Connects a container to its network while its child mounts, and lets the child go on.
inline void connect_network(container_parts& parts, network_work work, int netns,
                            const child_process& child) {
    const bool is_none = work.is_none();
    if (work.reservation) parts.attached.emplace(std::move(*work.reservation).connect(netns));
    for (moved_device& each : work.devices.all)
        parts.devices.push_back(moved_link::move(netns, each.link, std::move(each.inside)));
    if (!is_none) parts.line.mark("network");
    child.signal_go();
}

/// What a child in a user namespace waits for once it is there: its id maps, and its network.
struct work_for_born {
    const user_mapping& ids;
    const child_process& child;
    container_parts& parts;
    network_work& network;
    map_writer writer;

    template <class = void>
    task<void> operator()(scheduler& io) const {
        // While it waits: once it goes on it may fail, and be gone before its namespace is opened.
        std::optional<namespace_fd> netns;
        if (!network.is_none()) netns = namespace_fd::of_pidfd(child.pidfd(), namespace_kind::net);
        if (writer == map_writer::programs) {
            // They run for milliseconds, as processes of their own.
            co_await offload(io,
                             [this] { write_id_maps_with({}, child.pid(), ids.uids, ids.gids); });
        } else {
            write_id_maps(child.pid(), ids.uids, ids.gids);
        }
        child.signal_go();
        parts.line.mark("id maps");
        if (!netns) {
            child.signal_go();
            co_return;
        }
        connect_network(parts, std::exchange(network, {}), netns->get(), child);
    }
};

/// What a child has handed over.
struct from_child {
    unique_fd terminal{};
    start_calls calls{};
};

/// Reads what the child says until its end of the socket is closed.
template <class = void>
inline task<void> follow_child(scheduler& io, child_process& child,
                               std::optional<work_for_born> work, from_child& got) {
    std::optional<user_lookup> lookup;
    if (child.user()) lookup.emplace(*child.user());
    bool of_init = false;
    for (;;) {
        co_await io.poll(got.calls.fd(child.control()), POLLIN);
        got.calls.answer(child.pid());
        char bytes[1];
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
        iovec data{bytes, 1};  // what comes later may be for somebody else
        msghdr message{};
        message.msg_iov = &data;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        const auto size = ::recvmsg(child.control(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (size < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (size <= 0) co_return;  // ECONNRESET: closed with something of ours unread
        if (of_init) {
            child.settle_last_step(static_cast<unsigned char>(bytes[0]));
            co_return;
        }
        of_init = bytes[0] == 'x';
        const char last = bytes[0];
        for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr;
             head = CMSG_NXTHDR(&message, head)) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(head), sizeof fd);
            unique_fd received(fd);
            if (last == 't' && !got.terminal) got.terminal = std::move(received);
            if (last == 'l') got.calls.take(std::move(received), child.control());
            if (last == 'p' && lookup) lookup->take_passwd(std::move(received));
            if (last == 'q' && lookup) lookup->take_group(std::move(received));
        }
        if (lookup && last == 'u') {
            lookup->answer(child.report());
            child.signal_go();
            lookup.reset();
        }
        if (child.listener() && last == 'f') {
            got.calls.take(fetch_listener(child.pidfd(), *child.listener()), child.control());
            child.signal_go();
        }
        if (work && last == 'b') {
            co_await (*work)(io);
            work.reset();
        }
    }
}

/// Throws what went wrong on the child's side; returns when its command has been executed.
inline void judge(child_process& child, namespace_kind kinds, const std::string& name) {
    if (child.clone_error() != 0) throw error_of_clone(child.clone_error(), kinds, name);
    const child_report& report = child.report();
    if (report.error != 0) {
        const start_error failure = error_of_step(child.steps(), report, name);
        child.reap();
        throw failure;
    }
    if (report.step + 1 != static_cast<std::int32_t>(child.steps().size())) {
        const auto status = child.reap();
        throw error_of_death(report, child.steps(), status, name);
    }
}

}  // namespace kumiki::inline v0::detail
