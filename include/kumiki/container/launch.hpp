// The supervisor's side of a start: acquire in order, clone, build the network while the child
// mounts, let it go, and know how it went.
//
// The control socket carries single bytes: from the child 'b' (it is there, where it needs id maps),
// 't' with a descriptor (its terminal), 'p' and 'q' with its passwd and group files, 'u' (it asks
// whose ids a user's name stands for), 'l' with its filter's listener or 'f' (it waits until that was
// fetched), 'a' (it asks whether anybody is there); to the child 'n' with its network namespace, and
// 'g' at each step that waits. The child's end closes at its execve, or with its death: the report
// says which. An init keeps it: 'x' and a byte, errno or 0, say how the execve of its payload went,
// and its last word is for later (init.hpp).
#pragma once

#include <fcntl.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <kumiki/async/offload.hpp>
#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/cgroup/root.hpp>
#include <kumiki/container/child_process.hpp>
#include <kumiki/container/encode.hpp>
#include <kumiki/container/netns_maker.hpp>
#include <kumiki/container/process_reaper.hpp>
#include <kumiki/container/result.hpp>
#include <kumiki/container/rootless.hpp>
#include <kumiki/container/spec.hpp>
#include <kumiki/container/standard_pipes.hpp>
#include <kumiki/container/start_calls.hpp>
#include <kumiki/container/start_error.hpp>
#include <kumiki/container/timeline.hpp>
#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/names.hpp>
#include <kumiki/ns/namespace_fd.hpp>
#include <kumiki/ns/user_namespace.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// All that a running container holds; released in the reverse order of acquisition.
struct container_parts {
    std::string name;
    cgroup group;
    std::optional<endpoint> attached;
    unique_fd terminal;
    std::unique_ptr<seccomp_listener> calls;
    standard_pipes pipes;
    unique_fd init;  ///< what its init says at the end
    pid_t pid = 0;
    unique_fd pidfd;
    timeline line;
    std::int64_t executed = 0;  ///< right before its execve, as timeline::now()
    std::optional<container_result> result;
    namespace_kind kinds = namespace_kind::none;  ///< those of its own
    std::vector<unique_fd> claims;  ///< on directories of the host that only it may write to
    std::optional<user_mapping> users;
    process_spec process;  ///< what its first process was started as
    std::chrono::milliseconds start_limit{0};
    start_privileges caller{};
    process_reaper reaper;  ///< of those that entered it

    /// Ends a container that nobody has waited for.
    void kill_and_release() {
        if (pidfd && !result) {
            if (group) group.kill();
            sys::send_signal(pidfd.get(), SIGKILL);
            reaper.kill();
            sys::wait_blocking(pidfd.get());
        }
        pidfd.reset();
        release();
    }
    /// Called when no process of it runs any more, more than once if need be. What fails is told to
    /// the observer.
    void release() {
        release_network();
        release_quietly([&] {
            if (group) group.destroy();
            group = cgroup();
        });
        claims.clear();
    }
    /// Without waiting for the interface's end, which the network sees to.
    void release_network() {
        if (!attached) return;
        release_quietly([&] { attached->disconnect_soon(); });
        attached.reset();
    }
};

/// The group below which this process makes the groups of its containers.
inline cgroup make_container_group(const std::string& name, const resource_limits& limits) {
    static std::mutex one_at_a_time;
    static std::optional<cgroup_root> root;
    static std::pair<pid_t, uid_t> opened_by;
    const std::lock_guard hold(one_at_a_time);
    // A fork that has become somebody else has another place for its groups.
    const std::pair<pid_t, uid_t> self{::getpid(), ::geteuid()};
    if (root && opened_by != self) root.reset();
    if (!root) root.emplace(cgroup_root::open());
    opened_by = self;
    return root->create(name, limits);
}

inline std::string make_up_name() {
    std::array<unsigned char, 6> random{};
    sys::check(::getrandom(random.data(), random.size(), 0), "getrandom");
    std::string name = "c";
    for (const unsigned byte : random) {
        name += "0123456789abcdef"[byte >> 4];
        name += "0123456789abcdef"[byte & 15];
    }
    return name;
}

/// A host name made of a container's name, which may have characters that no host's has.
inline std::string hostname_from(std::string name) {
    for (char& c : name)
        if (c == '_' || c == '.') c = '-';
    name.resize(std::min<std::size_t>(name.size(), 63));
    while (name.ends_with('-')) name.pop_back();
    return name.empty() ? "container" : name;
}

/// The files that tell a container its name and where to resolve others.
inline std::vector<made_file> etc_files(const std::string& hostname,
                                        const std::vector<ip_address>& addresses) {
    const auto host = sys::try_read_file_at(AT_FDCWD, "/etc/resolv.conf");
    return {{"/etc/hostname", hostname_text(hostname)},
            {"/etc/hosts", hosts_text(hostname, addresses)},
            {"/etc/resolv.conf", resolv_conf_text(host.value_or(""))}};
}

/// The group of a container that is started with `caller`'s privileges. An ordinary user without a
/// delegated group has none, and then no limits.
inline cgroup make_group_for(const start_privileges& caller, const std::string& name,
                             const container_spec& spec) {
    if (!caller.unprivileged) return make_container_group(name, spec.limits);
    try {
        return make_container_group(name, spec.limits);
    } catch (const error& failure) {
        // All of its processes must go with the first: without a group, by the pid namespace.
        const bool can_be_without =
            settings_of(spec.limits).empty() && has(spec.all_namespaces(), namespace_kind::pid);
        const int code = failure.errno_value();
        const bool is_not_ours = dynamic_cast<const unsupported*>(&failure) != nullptr ||
                                 code == EACCES || code == EPERM || code == EROFS;
        if (!can_be_without || !is_not_ours) throw;
        return {};
    }
}

/// A closed one would be the next thing that is opened, here or in the child: a mount of the host,
/// say, which the payload would then have as its standard input. What is opened here is
/// close-on-exec, so one that is passed on as it is must not be.
inline void require_standard_descriptors(const process_spec& process) {
    for (int fd = 0; fd < 3; ++fd) {
        const int flags = ::fcntl(fd, F_GETFD);
        const bool passed_on =
            !process.terminal && process.stdio[static_cast<std::size_t>(fd)] == fd;
        if (flags >= 0 && !(passed_on && (flags & FD_CLOEXEC) != 0)) continue;
        throw error(EBADF, {.operation = "start a process with",
                            .object = "descriptor " + std::to_string(fd),
                            .step = name_of(phase::descriptors),
                            .container = {},
                            .remedy = "Descriptors 0, 1 and 2 of this program must be open, and "
                                      "not close-on-exec: open /dev/null as what is not."});
    }
}

/// Connects a container to its network while its child mounts, and lets the child go on.
inline void connect_network(container_parts& parts, std::optional<endpoint_reservation> reservation,
                            int netns, const child_process& child) {
    if (reservation) parts.attached.emplace(std::move(*reservation).connect(netns));
    if (reservation) parts.line.mark("network");
    child.signal_go();
}

/// What a child in a user namespace waits for once it is there: its id maps, and its network.
struct work_for_born {
    const user_mapping& ids;
    const child_process& child;
    container_parts& parts;
    std::optional<endpoint_reservation>& reservation;
    map_writer writer;

    task<void> operator()(scheduler& io) const {
        // While it waits: once it goes on it may fail, and be gone before its namespace is opened.
        std::optional<namespace_fd> netns;
        if (reservation) netns = namespace_fd::of_pidfd(child.pidfd(), namespace_kind::net);
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
        connect_network(parts, std::exchange(reservation, {}), netns->get(), child);
    }
};

/// What a child has handed over.
struct from_child {
    unique_fd terminal{};
    start_calls calls{};
};

/// Reads what the child says until its end of the socket is closed.
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

/// Lets tests change a plan just before its child is made.
struct plan_tap {
    void (*alter)(child_program& program, void* context) = nullptr;
    void* context = nullptr;
};

/// Starts `spec` and yields what the container holds.
inline task<std::unique_ptr<container_parts>> launch(scheduler& io, container_spec spec,
                                                     plan_tap tap = {}) {
    auto parts = std::make_unique<container_parts>();
    const start_privileges caller = start_privileges::of(spec);
    spec.validate();
    require_standard_descriptors(spec.process);
    parts->name = spec.name.empty() ? make_up_name() : spec.name;
    const std::string hostname =
        spec.hostname.empty() ? hostname_from(parts->name) : require_hostname(spec.hostname);
    const auto* attachment = std::get_if<network_attachment>(&spec.network);
    control_sockets sockets = control_sockets::make();
    std::optional<netns_maker> netns;
    if (!spec.user_namespace && has(spec.all_namespaces(), namespace_kind::net))
        netns.emplace(sockets.own.get(), attachment == nullptr);
    parts->line.mark("validate");

    parts->group = make_group_for(caller, parts->name, spec);
    parts->line.mark("cgroup");

    std::optional<endpoint_reservation> reservation;
    std::vector<ip_address> addresses;
    if (attachment != nullptr) {
        reservation.emplace(reserve(*attachment, parts->name));
        addresses = reservation->addresses();
        parts->line.mark("leases");
    }

    encoded_plan program = encode(spec, {.control = sockets.child.get(),
                                         .hostname = hostname,
                                         .files = etc_files(hostname, addresses),
                                         .receives_netns = netns.has_value(),
                                         .awaits_maps = spec.user_namespace.has_value(),
                                         .has_group = static_cast<bool>(parts->group),
                                         .caller = caller});
    parts->claims = std::move(program.claims);
    parts->users = spec.user_namespace;
    if (tap.alter != nullptr) tap.alter(*program.program, tap.context);
    parts->pipes = standard_pipes(io, std::move(program.pipes));
    const namespace_kind joined = spec.joined_namespaces();
    // The cgroup and time namespaces are the child's to make (encode.hpp says why).
    namespace_kind made_later = namespace_kind::cgroup | namespace_kind::time;
    if (netns) made_later |= namespace_kind::net;
    child_process child(std::move(program), std::move(sockets),
                        clone_flags(spec.all_namespaces() & ~made_later), parts->group.fd(),
                        has(joined, namespace_kind::pid) ? clone_mode::own_memory : spec.clone);
    parts->line.mark("plan");

    // A thread without privilege cannot go elsewhere, nor has it ever been.
    if (!caller.unprivileged && !has(spec.all_namespaces() | joined, namespace_kind::net))
        child.set_birth_place(sys::open_at(AT_FDCWD, "/proc/thread-self/ns/net", O_RDONLY),
                              namespace_kind::net);
    for (const auto& each : spec.join)
        child.set_birth_place(each->duplicate().release(), each->kind());
    child.submit();
    std::optional<work_for_born> work;
    if (spec.user_namespace)
        work.emplace(
            work_for_born{*spec.user_namespace, child, *parts, reservation, caller.writer});
    else if (!netns)
        child.signal_go();
    else if (attachment != nullptr && netns->wait() == 0)
        connect_network(*parts, std::exchange(reservation, {}), netns->fd(), child);
    from_child got;
    auto in_time = co_await with_timeout(io, spec.start_limit, follow_child(io, child, work, got));
    if (!in_time)
        throw start_error(ETIMEDOUT,
                          {.operation = "start",
                           .object = parts->name,
                           .step = "exec",
                           .container = parts->name,
                           .remedy = "It took longer than the spec's start_limit."},
                          125);
    child.await_clone();
    if (netns && netns->wait() != 0) throw error_of_netns(netns->wait(), parts->name);
    const std::int64_t executed = timeline::now();
    judge(child, spec.all_namespaces(), parts->name);
    parts->line.mark("child");
    parts->line.add(child.report(), executed);
    parts->executed =
        *std::max_element(std::begin(child.report().phase_end), std::end(child.report().phase_end));
    parts->pid = child.pid();
    parts->pidfd = child.release();
    parts->terminal = std::move(got.terminal);
    parts->calls = got.calls.finish(io, parts->pidfd.get());
    if (spec.process.init != init_process::none) parts->init = child.release_control();
    parts->kinds = spec.all_namespaces();
    parts->process = std::move(spec.process);
    parts->start_limit = spec.start_limit;
    parts->caller = caller;
    co_return parts;
}

}  // namespace detail
}  // namespace kumiki::inline v0
