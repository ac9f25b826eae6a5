// The supervisor's side of a start: acquire in order, clone, build the network while the child
// mounts, let it go, and know how it went.
#pragma once

#include <fcntl.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/cgroup/cgroup.hpp>
#include <kumiki/container/child_process.hpp>
#include <kumiki/container/container_parts.hpp>
#include <kumiki/container/encode.hpp>
#include <kumiki/container/follow_child.hpp>
#include <kumiki/container/netns_maker.hpp>
#include <kumiki/container/rootless.hpp>
#include <kumiki/container/spec.hpp>
#include <kumiki/container/start_error.hpp>
#include <kumiki/container/timeline.hpp>
#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/host_resolver.hpp>
#include <kumiki/network/names.hpp>
#include <kumiki/ns/namespace_fd.hpp>
#include <kumiki/ns/user_namespace.hpp>

namespace kumiki::inline v0 {

namespace detail {

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
inline std::vector<made_file> etc_files(const container_spec& spec, const std::string& hostname,
                                        const std::vector<ip_address>& addresses) {
    const auto* mode = std::get_if<network_mode>(&spec.network);
    // Who shares the host's network reaches what is on its loopback.
    const auto loopback = mode != nullptr && *mode == network_mode::host
                              ? loopback_servers::kept
                              : loopback_servers::left_out;
    resolver_options resolver = spec.resolver;
    const auto* place = std::get_if<network_attachment>(&spec.network);
    const bool has_names = place != nullptr && place->network->options.names == name_service::on;
    if (has_names) {
        const bridge_options& network = place->network->options;
        if (resolver.nameservers.empty()) resolver.nameservers = {gateway_of(network.subnet)};
        if (resolver.search.empty() && !network.domain.empty()) resolver.search = {network.domain};
    }
    // The host's search list would have its siblings' names asked for outside first.
    const std::string host = has_names ? "" : host_resolv_conf(loopback);
    return {{"/etc/hostname", hostname_text(hostname)},
            {"/etc/hosts", hosts_text(hostname, addresses, spec.hosts)},
            {"/etc/resolv.conf", resolv_conf_text(host, resolver, loopback)}};
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

/// Lets tests change a plan just before its child is made.
struct plan_tap {
    void (*alter)(child_program& program, void* context) = nullptr;
    void* context = nullptr;
};

/// How far a start goes.
enum class launch_end : std::uint8_t {
    command,  ///< the command has been executed
    ready,  ///< all is there but the command, which container_parts::waiter is handed (waiter.hpp)
};

/// Starts `spec` and yields what the container holds.
template <class = void>
inline task<std::unique_ptr<container_parts>> launch(scheduler& io, container_spec spec,
                                                     plan_tap tap = {},
                                                     launch_end end = launch_end::command) {
    auto parts = std::make_unique<container_parts>();
    const start_privileges caller = start_privileges::of(spec);
    spec.validate();
    require_standard_descriptors(spec.process);
    parts->name = spec.name.empty() ? make_up_name() : spec.name;
    const std::string hostname =
        spec.hostname.empty() ? hostname_from(parts->name) : require_hostname(spec.hostname);
    const auto* attachment = std::get_if<network_attachment>(&spec.network);
    network_work to_connect;
    if (const auto* moved = std::get_if<moved_devices>(&spec.network)) to_connect.devices = *moved;
    control_sockets sockets = control_sockets::make();
    std::optional<netns_maker> netns;
    const bool stays_alone = attachment == nullptr && to_connect.is_none();
    if (!spec.user_namespace && has(spec.all_namespaces(), namespace_kind::net))
        netns.emplace(sockets.own.get(), stays_alone);
    parts->line.mark("validate");

    parts->group = make_group_for(caller, parts->name, spec);
    parts->line.mark("cgroup");

    std::vector<ip_address> addresses;
    for (const moved_device& each : to_connect.devices.all)
        for (const cidr& own : each.inside.addresses) addresses.push_back(own.address);
    if (attachment != nullptr) {
        to_connect.reservation.emplace(reserve(*attachment, parts->name));
        addresses = to_connect.reservation->addresses();
        parts->line.mark("leases");
    }

    const namespace_kind joined = spec.joined_namespaces();
    // The cgroup and time namespaces are the child's to make (encode.hpp says why).
    namespace_kind made_later = namespace_kind::cgroup | namespace_kind::time;
    if (netns) made_later |= namespace_kind::net;
    child_process child(clone_flags(spec.all_namespaces() & ~made_later), parts->group.fd(),
                        has(joined, namespace_kind::pid) ? clone_mode::own_memory : spec.clone);
    // A thread without privilege cannot go elsewhere, nor has it ever been.
    if (!caller.unprivileged && !has(spec.all_namespaces() | joined, namespace_kind::net))
        child.set_birth_place(sys::open_at(AT_FDCWD, "/proc/thread-self/ns/net", O_RDONLY),
                              namespace_kind::net);
    for (const auto& each : spec.join)
        child.set_birth_place(each->duplicate().release(), each->kind());
    child.prepare();

    encoded_plan program = encode(spec, {.control = sockets.child.get(),
                                         .hostname = hostname,
                                         .files = etc_files(spec, hostname, addresses),
                                         .receives_netns = netns.has_value(),
                                         .loopback_is_raised = netns && stays_alone,
                                         .awaits_maps = spec.user_namespace.has_value(),
                                         .has_group = static_cast<bool>(parts->group),
                                         .waits = end == launch_end::ready,
                                         .caller = caller});
    parts->claims = std::move(program.claims);
    parts->users = spec.user_namespace;
    if (tap.alter != nullptr) tap.alter(*program.program, tap.context);
    parts->pipes = standard_pipes(io, std::move(program.pipes));
    const std::int64_t asked = parts->line.mark("plan");
    child.submit(std::move(program), std::move(sockets));
    std::optional<work_for_born> work;
    if (spec.user_namespace)
        work.emplace(work_for_born{*spec.user_namespace, child, *parts, to_connect, caller.writer});
    else if (!netns)
        child.signal_go();
    else if (!to_connect.is_none() && netns->wait() == 0) {
        parts->line.mark("netns");
        connect_network(*parts, std::exchange(to_connect, {}), netns->fd(), child);
    }
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
    parts->line.mark(waiting_span.data());
    parts->line.add(child.report(), asked, executed);
    parts->executed =
        *std::max_element(std::begin(child.report().phase_end), std::end(child.report().phase_end));
    parts->pid = child.pid();
    parts->pidfd = child.release();
    parts->terminal = std::move(got.terminal);
    parts->calls = got.calls.finish(io, parts->pidfd.get());
    if (spec.process.init != init_process::none) parts->init = child.release_control();
    if (end == launch_end::ready) parts->waiter = child.release_control();
    parts->kinds = spec.all_namespaces();
    parts->process = std::move(spec.process);
    parts->start_limit = spec.start_limit;
    parts->caller = caller;
    parts->line.mark("take over");
    co_return parts;
}

}  // namespace detail
}  // namespace kumiki::inline v0
