#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <kumiki/async/offload.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/cgroup/hierarchy.hpp>
#include <kumiki/container/container.hpp>
#include <kumiki/core/version.hpp>
#include <kumiki/network/bridge_network.hpp>
#include <kumiki/sys/check.hpp>

#include "busybox_rootfs.hpp"
#include "demonstration.hpp"
#include "interrupt.hpp"
#include "kernel_view.hpp"
#include "outside.hpp"
#include "printer.hpp"

namespace example {
namespace {

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;

// TEST-NET-1 and the documentation prefix (RFC 5737, RFC 3849) are the outside.
constexpr cidr host_v4 = "192.0.2.1/24"_cidr;
constexpr cidr host_v6 = "2001:db8::1/64"_cidr;
constexpr cidr friend_v4 = "192.0.2.10/24"_cidr;
constexpr cidr friend_v6 = "2001:db8::10/64"_cidr;
constexpr cidr stranger_v4 = "192.0.2.66/24"_cidr;
constexpr cidr stranger_v6 = "2001:db8::66/64"_cidr;
constexpr cidr allowed_v4 = "192.0.2.0/27"_cidr;
constexpr cidr allowed_v6 = "2001:db8::/122"_cidr;
constexpr std::uint16_t host_port = 8080;
constexpr std::uint16_t server_port = 9000;  // of a server out there
constexpr const char* page = "Hello from a container made by kumiki.\n";

std::string own_name(const char* part) { return fmt::format("demo-{}-{}", part, ::getpid()); }

/// The limits that this host's v2 hierarchy has the controllers for; the others are told about.
resource_limits possible_limits(printer& out) {
    const auto hierarchy = cgroup_hierarchy::find();
    const auto there =
        parse_controllers(text_of(hierarchy.mount().mount_point + "/cgroup.controllers"));
    resource_limits limits;
    if (has(there, controllers::memory)) limits.memory = 64_MiB;
    if (has(there, controllers::cpu)) limits.cpu = cpus(0.5);
    if (has(there, controllers::pids)) limits.pids = 32;
    if (has(there, controllers::hugetlb)) limits.raw.push_back({"hugetlb.2MB.max", "0"});
    const auto missing = (controllers::memory | controllers::cpu | controllers::pids) & ~there;
    if (missing != controllers::none)
        out.text("This host's cgroup v2 has no " + to_string(missing) +
                 ", and so the container runs without those limits. " +
                 hierarchy.explain_missing(missing));
    return limits;
}

/// busybox's web server below a shell that ends when it is asked to.
container_spec web_server(const busybox_rootfs& root, resource_limits limits,
                          const bridge_network& net) {
    return {
        .name = own_name("web"),
        .rootfs = rootfs::overlay(root.path()),
        .process = {.args = {"sh", "-c", "trap 'exit 0' TERM; httpd -f -h /www & wait"}},
        .limits = std::move(limits),
        .network = net.attach({.publish = {tcp(host_port, 80)},
                               .ingress = deny_all().allow(allowed_v4).allow(allowed_v6),
                               .egress = deny_all()}),
        .hostname = "web",
    };
}

/// Starts it with users of its own, if the kernel can show them the files (id-mapped mounts).
task<container> start_web_server(scheduler& io, printer& out, const busybox_rootfs& root,
                                 const resource_limits& limits, const bridge_network& net) {
    const id_map shifted{{.inside = 0, .outside = 100000, .count = 65536}};
    container_spec spec = web_server(root, limits, net);
    spec.user_namespace = user_mapping{.uids = shifted, .gids = shifted};
    try {
        auto box = co_await container::start(io, std::move(spec));
        co_return box;
    } catch (const error& failure) {
        if (failure.errno_value() != EINVAL || failure.step() != "mounts") throw;
        out.text(std::string("It runs without users of its own: ") + failure.what());
    }
    container_spec plain = web_server(root, limits, net);
    auto box = co_await container::start(io, std::move(plain));
    co_return box;
}

void show_isolation(printer& out, const container& box) {
    const pid_t pid = box.pid();
    const pid_t self = ::getpid();
    const std::string root = fmt::format("/proc/{}/root", pid);
    out.row("", "outside", "inside");
    const auto compare = [&](const char* name, const std::string& outside,
                             const std::string& inside) { out.row(name, outside, inside); };
    compare("host name", hostname_of(self), hostname_of(pid));
    compare("PID 1", command_of(1).substr(0, 28), command_of(pid).substr(0, 28));
    compare("its PID", fmt::format("{}", pid),
            status_of(pid, "NSpid").substr(status_of(pid, "NSpid").rfind('\t') + 1));
    compare("processes", fmt::format("{}", processes_seen("")),
            fmt::format("{}", processes_seen(root)));
    compare("mounts", fmt::format("{}", mounts_of(self)), fmt::format("{}", mounts_of(pid)));
    compare("its user", status_of(pid, "Uid").substr(0, status_of(pid, "Uid").find('\t')), "0");
    compare("interfaces", interfaces_of(self).substr(0, 28), interfaces_of(pid));
    compare("control group", cgroup_outside(pid).substr(0, 28), cgroup_inside(pid));
    fmt::print("\n");
    bool differ = true;
    const bool users = namespace_of(pid, "user") != namespace_of(self, "user");
    for (const char* kind : {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}) {
        if (!users && std::string_view(kind) == "user") continue;  // it was told at the start
        const std::string outside = namespace_of(self, kind);
        const std::string inside = namespace_of(pid, kind);
        compare(fmt::format("ns/{}", kind).c_str(), outside, inside);
        differ = differ && !inside.empty() && outside != inside;
    }
    fmt::print("\n");
    out.claim(differ, "each of these namespaces is the container's own");
    out.claim(hostname_of(pid) == "web", "its host name is web");
    out.claim(status_of(pid, "NSpid").ends_with("\t1"), "its first process is PID 1 inside");
    if (users)
        out.claim(status_of(pid, "Uid").starts_with("100000\t"),
                  "its root is user 100000 of the host: nobody");
    out.claim(interfaces_of(pid).find("uplink") == std::string::npos,
              "it does not see the host's interfaces");
    out.claim(cgroup_inside(pid) == "/" && cgroup_outside(pid).ends_with(box.name()),
              "it takes its control group for the root of all");
    out.claim(text_of(root + "/etc/hostname") == "web" &&
                  text_of(root + "/www/index.html") + "\n" == page,
              "its root filesystem is the one that was asked for");
    out.claim(status_of(pid, "Seccomp") == "2" && status_of(pid, "NoNewPrivs") == "1",
              "system calls are filtered, and no program gives it new privileges");
}

void show_limits(printer& out, const container& box, const resource_limits& wanted) {
    const std::string group =
        cgroup_hierarchy::find().mount().mount_point + cgroup_outside(box.pid());
    out.row("control group", group);
    bool all = true;
    for (const cgroup_setting& setting : settings_of(wanted)) {
        const std::string value = text_of(group + "/" + setting.key);
        out.row(setting.key, value);
        all = all && value == setting.value;
    }
    const std::string limits = text_of(fmt::format("/proc/{}/limits", box.pid()));
    std::string_view rest = limits;
    while (const auto line = next_field(rest, '\n'))
        if (line->starts_with("Max open files")) {
            rest = trim(line->substr(14));
            out.row("open files", next_field(rest, ' ').value_or(""));
            break;
        }
    const std::string procs = text_of(group + "/cgroup.procs");
    out.claim(all, "the control group's files say what was asked for");
    out.claim(("\n" + procs + "\n").find(fmt::format("\n{}\n", box.pid())) != std::string::npos,
              "the container's processes are in it");
}

void show_network(printer& out, const container& box) {
    out.row("addresses", addresses_of(box.pid()));
    out.row("default routes", gateways_of(box.pid()));
    out.row("published", fmt::format("port {} of the host leads to port 80", host_port));
    out.row("who may use it", to_string(allowed_v4) + " and " + to_string(allowed_v6));
}

/// Asks until the server is up: it starts on its own time.
task<answer> first_page(scheduler& io, const outside_world& outside) {
    for (int attempt = 0;; ++attempt) {
        auto got = co_await offload(
            io, [&] { return outside.get(friend_v4.address, host_v4.address, host_port); });
        if (got.connected || attempt == 200) co_return got;
        co_await io.sleep_for(20ms);
    }
}

task<void> show_clients(scheduler& io, printer& out, const outside_world& outside) {
    const auto show = [&](const ip_address& from, const ip_address& to, const answer& got) {
        out.row(to_string(from),
                fmt::format("http://{}:{}/", to.is_v6() ? "[" + to_string(to) + "]" : to_string(to),
                            host_port),
                got.why);
    };
    out.row("client", "asks for", "and gets");
    const answer v4 = co_await first_page(io, outside);
    show(friend_v4.address, host_v4.address, v4);
    const auto ask = [&](const cidr& from, const cidr& to, int milliseconds) {
        return [&outside, from, to, milliseconds] {
            return outside.get(from.address, to.address, host_port, milliseconds);
        };
    };
    const answer v6 = co_await offload(io, ask(friend_v6, host_v6, 3000));
    show(friend_v6.address, host_v6.address, v6);
    const answer denied_v4 = co_await offload(io, ask(stranger_v4, host_v4, 500));
    show(stranger_v4.address, host_v4.address, denied_v4);
    const answer denied_v6 = co_await offload(io, ask(stranger_v6, host_v6, 500));
    show(stranger_v6.address, host_v6.address, denied_v6);
    fmt::print("\n");
    out.claim(v4.body == page, "an outside client got the page over IPv4");
    out.claim(v6.body == page, "an outside client got the page over IPv6");
    out.claim(!denied_v4.connected && !denied_v6.connected,
              "an address that is not allowed gets nothing, over either");
}

/// A container that connects to the server out there, and says nothing.
container_spec client(const busybox_rootfs& root, const char* name, const bridge_network& net,
                      policy egress, int nothing) {
    return {
        .name = own_name(name),
        .rootfs = rootfs::overlay(root.path()),
        .process = {.args = {"nc", "-w", "1", to_string(friend_v4.address),
                             std::to_string(server_port)},
                    .stdio = {nothing, nothing, nothing}},
        .network = net.attach({.egress = std::move(egress)}),
    };
}

/// True when a container with this egress policy gets through to the server out there.
task<bool> reaches_out(scheduler& io, const busybox_rootfs& root, const bridge_network& net,
                       const char* name, policy egress, int listener) {
    const unique_fd nothing = sys::open_at(AT_FDCWD, "/dev/null", O_RDWR);
    container_spec spec = client(root, name, net, std::move(egress), nothing.get());
    auto box = co_await container::start(io, std::move(spec));
    auto first = co_await when_any(io.accept(listener), box.wait());
    co_return first.index() == 0;
}

void show_footprints(printer& out, const footprint& before, const footprint& during,
                     const footprint& after) {
    const auto line = [&](const char* what, std::size_t footprint::* count) {
        fmt::print("  {:<34} {:>10} {:>10} {:>10}\n", what, before.*count, during.*count,
                   after.*count);
    };
    fmt::print("  {:<34} {:>10} {:>10} {:>10}\n", "", "before", "running", "after");
    line("control groups of these containers", &footprint::groups);
    line("network interfaces", &footprint::links);
    line("tables, chains, sets and rules", &footprint::rules);
    line("mounts of the host", &footprint::mounts);
    line("processes", &footprint::processes);
    fmt::print("\n");
    out.claim(after == before, "nothing is left");
}

/// What runs while the network is there; returns the footprint in the middle of it.
task<footprint> show_container(scheduler& io, printer& out, const busybox_rootfs& root,
                               const outside_world& outside,
                               const std::vector<std::string>& names) {
    const auto net = bridge_network::open(
        {.name = "demo", .subnet = "10.173.0.0/24"_cidr, .subnet6 = "fd00:173::/64"_cidr});

    out.heading("start");
    const resource_limits limits = possible_limits(out);
    auto box = co_await start_web_server(io, out, root, limits, net);
    out.claim(true, fmt::format("container {} runs: {}", box.name(), command_of(box.pid())));

    out.heading("isolated: what the kernel shows outside and inside");
    show_isolation(out, box);
    out.heading("limited: the control group's files");
    show_limits(out, box, limits);
    out.heading("networked: from /proc/PID/net");
    show_network(out, box);
    out.heading("reached from outside");
    co_await show_clients(io, out, outside);

    out.heading("reaching out: two more containers, and a server out there");
    const unique_fd server = outside.listen(friend_v4.address, server_port);
    const std::string target = fmt::format("{}:{}", to_string(friend_v4.address), server_port);
    auto forbidden = reaches_out(io, root, net, "denied", deny_all(), server.get());
    const bool passed = co_await std::move(forbidden);
    out.claim(!passed, "one with --egress none does not reach " + target);
    auto permitted =
        reaches_out(io, root, net, "allowed", deny_all().allow(friend_v4.address, tcp(server_port)),
                    server.get());
    const bool arrived = co_await std::move(permitted);
    out.claim(arrived, "one with --egress " + target + " does");
    const footprint during = take_footprint(names);

    out.heading("timeline of the start");
    fmt::print("{}", to_string(box.start_timeline(), 30));

    out.heading("end");
    auto result = co_await box.stop(5s);
    out.row("exit status", fmt::format("{}", result.exit_code()));
    if (result.usage.cpu_usage)
        out.row(
            "processor time",
            fmt::format("{:.1f} ms", static_cast<double>(result.usage.cpu_usage->count()) / 1000));
    if (result.usage.memory_peak) out.row("peak memory", to_string(*result.usage.memory_peak));
    out.claim(result.exit_code() == 0, "it ended by itself when it was asked to");
    co_return during;
}

task<int> show_all(scheduler& io) {
    printer out;
    out.title(fmt::format("kumiki {}: a full container, and what the kernel says of it", version));
    out.text(
        "This program has moved to a network and a mount namespace of its own, which stand "
        "for the host's in all that follows: this machine's interfaces, its rules and its "
        "ip_forward are not touched. A second network namespace is the outside.");

    busybox_rootfs root;
    root.write("/www/index.html", page);
    bring_up_loopback();
    const outside_world outside({host_v4, host_v6},
                                {friend_v4, friend_v6, stranger_v4, stranger_v6});
    const std::vector<std::string> names{own_name("web"), own_name("denied"), own_name("allowed")};

    const footprint before = take_footprint(names);
    const footprint during = co_await show_container(io, out, root, outside, names);
    const footprint after = take_footprint(names);

    out.heading("nothing is left");
    show_footprints(out, before, during, after);
    if (out.failed() != 0)
        fmt::print("\nFAILED: {} of {} claims\n", out.failed(), out.claims());
    else
        fmt::print("\nAll {} claims held.\n", out.claims());
    co_return out.failed() == 0 ? 0 : 1;
}

}  // namespace

void leave_the_host() {
    sys::check(::unshare(CLONE_NEWNET | CLONE_NEWNS), "unshare the network and the mounts");
    sys::check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr),
               "keep mounts to ourselves");
}

int demonstrate() {
    scheduler io;
    return io.run(until_signal(io, show_all(io)));
}

}  // namespace example
