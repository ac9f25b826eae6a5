#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>

#include <kumiki/async/signals.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/container/container.hpp>
#include <kumiki/network/bridge_network.hpp>
#include <kumiki/security/user.hpp>
#include <kumiki/sys/file.hpp>

#include "busybox_rootfs.hpp"
#include "terminal.hpp"
#include "tool.hpp"

namespace example {
namespace {

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;

/// A line on stderr. "\r\n" also ends one while the terminal is raw.
void note(std::string_view text) {
    fmt::print(stderr, "kumiki: {}{}\n", text, ::isatty(STDERR_FILENO) == 1 ? "\r" : "");
}

bool wants_terminal(const options& given) {
    if (given.terminal != terminal_choice::automatic)
        return given.terminal == terminal_choice::always;
    return ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
}

/// The text of a file of the container's, or none.
std::string file_inside(const std::string& root, const char* path) {
    try {
        const unique_fd top = sys::open_at(AT_FDCWD, root, O_PATH | O_DIRECTORY);
        const unique_fd file = sys::open_in_root(top.get(), path, O_RDONLY);
        return sys::read_all(file.get(), path);
    } catch (const error&) {
        return {};
    }
}

void set_variable(std::vector<std::string>& env, const std::string& variable) {
    const std::string name = variable.substr(0, variable.find('=') + 1);
    std::erase_if(env, [&](const std::string& each) { return each.starts_with(name); });
    env.push_back(variable);
}

std::vector<std::string> environment(const options& given, const std::string& home, bool terminal) {
    std::vector<std::string> env{std::string("PATH=") + default_path,
                                 "HOME=" + (home.empty() ? "/" : home)};
    const char* term = ::getenv("TERM");
    if (terminal) env.push_back(std::string("TERM=") + (term != nullptr ? term : "xterm"));
    for (const std::string& variable : given.env) {
        if (variable.find('=') != std::string::npos) {
            set_variable(env, variable);
        } else if (const char* value = ::getenv(variable.c_str())) {
            set_variable(env, variable + "=" + value);
        }
    }
    return env;
}

std::string absolute(const std::string& path) {
    if (path.starts_with('/')) return path;
    const std::unique_ptr<char, void (*)(void*)> here(::getcwd(nullptr, 0), ::free);
    return here ? std::string(here.get()) + "/" + path : path;
}

container_spec make_spec(const options& given, const std::string& root) {
    const bool terminal = wants_terminal(given);
    const resolved_user user = resolve_user(parse_user(given.user), file_inside(root, "etc/passwd"),
                                            file_inside(root, "etc/group"));
    container_spec spec{
        .name = given.name,
        .rootfs = rootfs::overlay(root),
        .process = {.args = given.command,
                    .env = environment(given, user.home, terminal),
                    .cwd = given.workdir,
                    .user = user.ids,
                    .capabilities = given.capabilities,
                    .rlimits = given.rlimits},
        .limits = given.limits,
        .hostname = given.hostname,
        .mounts = given.mounts,
    };
    if (given.access == access_mode::read_only) spec.rootfs = std::move(spec.rootfs).read_only();
    if (spec.process.args.empty()) spec.process.args = {"sh"};
    for (mount_description& mount : spec.mounts)
        if (auto* bind = std::get_if<bind_mount>(&mount)) bind->source = absolute(bind->source);
    if (terminal) spec.process.terminal = size_of_terminal(STDIN_FILENO).value_or(terminal_size{});
    return spec;
}

bridge_options make_network(const options& given) {
    return {.name = given.network_name(),
            .subnet = given.subnet.value_or("10.173.0.0/20"_cidr),
            .subnet6 = given.subnet6};
}

attach_options make_endpoint(const options& given) {
    attach_options wanted{.publish = given.publish};
    if (!given.allow_from.empty()) {
        wanted.ingress = deny_all();
        for (const cidr& from : given.allow_from) wanted.ingress.allow(from);
    }
    if (given.egress) wanted.egress = *given.egress;
    return wanted;
}

/// What runs; in this order it can be released.
struct running {
    std::optional<bridge_network> net;
    container box;
};

task<running> start(scheduler& io, const options& given, const std::string& root) {
    container_spec spec = make_spec(given, root);
    std::optional<bridge_network> net;
    const std::string network = given.network_name();
    if (network == "host") {
        spec.network = network_mode::host;
    } else if (network != "none") {
        net.emplace(bridge_network::open(make_network(given)));
        spec.network = net->attach(make_endpoint(given));
    }
    auto box = co_await container::start(io, std::move(spec));
    co_return running{std::move(net), std::move(box)};
}

/// Ends with the first signal that means the end, which is in `fatal` then: also when the work beside
/// it was done in the same instant and the caller hears of that.
task<void> await_fatal(signal_stream& signals, int& fatal) {
    while (fatal == 0) {
        const auto arrived = co_await signals.next();
        if (arrived && arrived->signal != SIGWINCH) fatal = arrived->signal;
    }
}

/// True when the process has a handler for the signal, and so does not ignore it as a PID 1 does.
bool handles(pid_t pid, int signal) {
    const auto status = sys::try_read_file_at(AT_FDCWD, fmt::format("/proc/{}/status", pid));
    std::string_view rest = status ? std::string_view(*status) : std::string_view{};
    while (const auto line = next_field(rest, '\n'))
        if (line->starts_with("SigCgt:"))
            return (parse_number<std::uint64_t>(trim(line->substr(7)), 16).value_or(0) >>
                        (signal - 1) &
                    1) != 0;
    return false;
}

/// Hands signals on to the payload; the second within two seconds kills it. Does not end.
task<void> forward_signals(scheduler& io, const container& box, signal_stream& signals) {
    auto last = std::chrono::steady_clock::time_point::min();
    for (;;) {
        const auto arrived = co_await signals.next();
        if (!arrived) continue;
        if (arrived->signal == SIGWINCH) {
            if (const auto size = size_of_terminal(STDIN_FILENO); size && box.terminal() >= 0)
                box.resize(*size);
            continue;
        }
        const auto now = std::chrono::steady_clock::now();
        const bool again = last != std::chrono::steady_clock::time_point::min() && now - last < 2s;
        last = now;
        if (again) {
            box.signal(SIGKILL);
            continue;
        }
        if (!handles(box.pid(), arrived->signal) && arrived->signal != SIGHUP)
            note(fmt::format("the payload does not handle SIG{}; once more within 2 s kills it",
                             ::sigabbrev_np(arrived->signal)));
        box.signal(arrived->signal);
        if (arrived->signal != SIGHUP) continue;
        co_await io.sleep_for(2s);  // nobody is there any more to ask twice
        box.signal(SIGKILL);
    }
}

enum class copied { all, reader_gone };

/// Copies until the end of `from`, or until nobody reads `to` any more.
task<copied> copy(scheduler& io, int from, int to) {
    std::array<std::byte, 16384> buffer{};
    for (;;) {
        std::size_t size = 0;
        try {
            size = co_await io.read(from, buffer);
        } catch (const error&) {
            co_return copied::all;  // EIO: a terminal whose other side was closed
        }
        if (size == 0) co_return copied::all;
        try {
            co_await write_all(io, to, std::span(buffer).first(size));
        } catch (const error&) {
            co_return copied::reader_gone;
        }
    }
}

/// From our stdin to the container's terminal. The end of a file is told as a person does, by ^D.
task<void> relay_input(scheduler& io, int terminal) {
    co_await copy(io, STDIN_FILENO, terminal);
    constexpr std::array end_of_file{std::byte{4}};
    try {
        co_await write_all(io, terminal, end_of_file);
    } catch (const error&) {
        // the payload has ended, too
    }
}

/// From there to our stdout. When nobody reads that any more, the payload hears what SIGPIPE says.
task<void> relay_output(scheduler& io, const container& box) {
    const copied how = co_await copy(io, box.terminal(), STDOUT_FILENO);
    if (how == copied::reader_gone) box.signal(SIGKILL);
}

task<void> print_events(const container& box) {
    auto events = box.events();
    for (;;) {
        const auto event = co_await events.next();
        if (!event) co_return;
        note(event->count == 1
                 ? fmt::format("event {}", to_string(event->kind))
                 : fmt::format("event {}, {} times", to_string(event->kind), event->count));
    }
}

/// The payload's end, and all that it has written.
task<container_result> finish(scheduler& io, container& box) {
    if (box.terminal() < 0) co_return co_await box.wait();
    auto both = co_await when_all(box.wait(), relay_output(io, box));
    co_return std::move(std::get<0>(both));
}

/// What goes on beside the payload until it ends.
task<void> attend(scheduler& io, const options& given, const container& box,
                  signal_stream& signals) {
    std::vector<task<void>> work;
    work.push_back(forward_signals(io, box, signals));
    if (box.terminal() >= 0) work.push_back(relay_input(io, box.terminal()));
    if (given.events) work.push_back(print_events(box));
    co_await when_all(std::move(work));
}

void tell_start(const options& given, const scheduler& io, const running& all) {
    if (given.verbose) {
        note(fmt::format("the scheduler uses {}", to_string(io.backend())));
        note(fmt::format("container {} runs as process {} in {}", all.box.name(), all.box.pid(),
                         all.box.cgroup().path()));
    }
    const bool picked = std::ranges::any_of(given.publish, &published_port::picks_port);
    if (const endpoint* end = all.box.network(); end != nullptr && (given.verbose || picked))
        for (const published_port& port : end->published()) note("published " + to_string(port));
    if (given.timeline) fmt::print(stderr, "{}", to_string(all.box.start_timeline(), 30));
}

int tell_end(const options& given, const container_result& result) {
    if (result.was_oom_killed()) {
        std::string limit;
        if (given.limits.memory) limit = " (memory.max " + to_string(*given.limits.memory) + ")";
        note("killed: out of memory" + limit);
    }
    if (given.verbose && result.usage.cpu_usage)
        note(fmt::format("it used {:.1f} ms of processor time{}",
                         static_cast<double>(result.usage.cpu_usage->count()) / 1000,
                         result.usage.memory_peak
                             ? " and at most " + to_string(*result.usage.memory_peak)
                             : std::string()));
    return result.exit_code();
}

task<int> run_container(scheduler& io, const options& given) {
    signal_stream signals(io, {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGWINCH});
    std::optional<busybox_rootfs> busybox;
    const std::string root =
        given.rootfs.empty() ? busybox.emplace().path() : absolute(given.rootfs);
    int fatal = 0;
    auto first = co_await when_any(start(io, given, root), await_fatal(signals, fatal));
    if (fatal != 0) co_return 128 + fatal;
    running all = std::get<0>(std::move(first));
    tell_start(given, io, all);

    std::optional<raw_terminal> raw;
    if (all.box.terminal() >= 0) raw.emplace(STDIN_FILENO);
    auto ended = co_await when_any(finish(io, all.box), attend(io, given, all.box, signals));
    raw.reset();
    co_return tell_end(given, std::get<0>(ended));
}

}  // namespace

int run_tool(const options& given) {
    scheduler io;
    return io.run(run_container(io, given));
}

}  // namespace example
