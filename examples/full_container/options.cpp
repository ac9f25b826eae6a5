#include <algorithm>
#include <numeric>
#include <string_view>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/core/units.hpp>

#include "options.hpp"

namespace example {
namespace {

using namespace kumiki;

/// One line of the help. An empty `name` is a heading; an empty `value` says that it takes none.
struct option {
    char letter = 0;
    std::string_view name{};
    std::string_view value{};
    std::string_view help{};
    void (*apply)(options&, std::string_view) = nullptr;
};

tmpfs_mount parse_tmpfs(std::string_view text) {
    const auto colon = text.find(':');
    tmpfs_mount mount{.target = std::string(text.substr(0, colon))};
    require_inside_path("tmpfs", mount.target);
    if (colon != std::string_view::npos) mount.size = parse_bytes(text.substr(colon + 1));
    return mount;
}

/// "NETWORK", "NETWORK:PORT[/PROTOCOL]", with brackets around an IPv6 one that has a port.
policy allow_one(policy allowed, std::string_view text) {
    const auto refuse = [&](std::string_view why) { throw invalid_input("egress", text, why); };
    std::string_view network = text;
    std::string_view ports;
    if (text.starts_with('[')) {
        const auto close = text.find(']');
        if (close == std::string_view::npos) refuse("The bracket is not closed.");
        network = text.substr(1, close - 1);
        ports = text.substr(close + 1);
        if (!ports.empty() && !ports.starts_with(':')) refuse("A port follows behind a colon.");
        if (!ports.empty()) ports.remove_prefix(1);
    } else if (std::ranges::count(text, ':') == 1) {
        network = text.substr(0, text.find(':'));
        ports = text.substr(text.find(':') + 1);
        if (ports.empty()) refuse("There is no port behind the colon.");
    }
    const auto to = cidr::try_parse(network);
    if (!to)
        refuse(
            "It must be all, none, or a list like 10.0.0.53:53/udp,192.0.2.0/24,"
            "[2001:db8::/64]:443.");
    if (ports.empty()) return std::move(allowed).allow(*to);
    const auto slash = ports.find('/');
    port_match match{.transport = protocol::tcp,
                     .ports = port_range::parse(ports.substr(0, slash))};
    if (slash != std::string_view::npos) {
        const auto name = ports.substr(slash + 1);
        if (name == "udp")
            match.transport = protocol::udp;
        else if (name == "sctp")
            match.transport = protocol::sctp;
        else if (name != "tcp")
            refuse("The protocol must be tcp, udp or sctp.");
    }
    return std::move(allowed).allow(*to, match);
}

policy parse_egress(policy so_far, std::string_view text) {
    for (const std::string_view one : split(text, ',')) so_far = allow_one(std::move(so_far), one);
    return so_far;
}

cidr parse_subnet(std::string_view text, ip_family family) {
    const cidr parsed = cidr::parse(text);
    if (parsed.address.family() != family)
        throw invalid_input("network", text,
                            family == ip_family::v4 ? "It is not IPv4: use --subnet6."
                                                    : "It is not IPv6: use --subnet.");
    return parsed;
}

using text = std::string_view;

constexpr option table[] = {
    {.help = "Limits (control group v2)"},
    {'m', "memory", "SIZE", "memory: 64M, 2G; the payload is killed above it",
     [](options& o, text v) { o.limits.memory = parse_bytes(v); }},
    {0, "memory-swap", "SIZE", "swap space beside it; 0 allows none",
     [](options& o, text v) { o.limits.memory_swap = parse_bytes(v); }},
    {0, "cpus", "NUMBER", "processor time: 0.5 is half of one processor",
     [](options& o, text v) { o.limits.cpu = parse_cpus(v); }},
    {0, "pids", "NUMBER", "processes and threads together",
     [](options& o, text v) { o.limits.pids = require_number<std::uint64_t>("number", v); }},
    {0, "ulimit", "NAME=SOFT[:HARD]", "a limit of each process, like nofile=1024:4096",
     [](options& o, text v) { o.rlimits.push_back(parse_resource_limit(v)); }},

    {.help = "Network"},
    {0, "network", "none|host|NAME",
     "lo alone; the host's; or a bridge network of that name\n"
     "(default: none, or kumiki if an option needs one)",
     [](options& o, text v) { o.network = std::string(v); }},
    {0, "subnet", "CIDR", "the bridge network's IPv4 (default: 10.173.0.0/20)",
     [](options& o, text v) { o.subnet = parse_subnet(v, ip_family::v4); }},
    {0, "subnet6", "CIDR", "the bridge network's IPv6 (default: none)",
     [](options& o, text v) { o.subnet6 = parse_subnet(v, ip_family::v6); }},
    {'p', "publish", "[[ADDRESS:]PORT:]PORT[/udp]",
     "a port of the host that leads into it; the container's\n"
     "alone has a free one picked, which is told",
     [](options& o, text v) { o.publish.push_back(published_port::parse(v)); }},
    {0, "allow-from", "CIDR", "who may use the published ports (default: everybody)",
     [](options& o, text v) { o.allow_from.push_back(cidr::parse(v)); }},
    {0, "egress", "all|none|LIST", "what it may reach: CIDR[:PORT[/udp]],...; default: all",
     [](options& o, text v) {
         if (v == "all")
             o.egress = allow_all();
         else if (v == "none")
             o.egress = deny_all();
         else
             o.egress = parse_egress(o.egress.value_or(deny_all()), v);
     }},

    {.help = "Files"},
    {0, "rootfs", "DIR",
     "the root filesystem, left as it is: changes go to a\n"
     "tmpfs above it (default: one of Debian's busybox)",
     [](options& o, text v) {
         if (v.empty()) throw invalid_input("rootfs", v, "It must name a directory.");
         o.rootfs = std::string(v);
     }},
    {0, "read-only", "", "the root filesystem cannot be written to",
     [](options& o, text) { o.access = access_mode::read_only; }},
    {'v', "volume", "DIR:DIR[:ro]", "a directory or file of the host in the container",
     [](options& o, text v) { o.mounts.emplace_back(parse_bind_mount(v)); }},
    {0, "tmpfs", "DIR[:SIZE]", "an empty tmpfs in the container",
     [](options& o, text v) { o.mounts.emplace_back(parse_tmpfs(v)); }},

    {.help = "Process"},
    {0, "name", "NAME", "its name, unique on the host (default: one is made up)",
     [](options& o, text v) { o.name = std::string(v); }},
    {0, "hostname", "NAME", "its host name (default: its name)",
     [](options& o, text v) { o.hostname = std::string(v); }},
    {'e', "env", "NAME[=VALUE]", "an environment variable; without a value, ours",
     [](options& o, text v) {
         if (v.empty() || v.front() == '=')
             throw invalid_input("variable", v, "It must be like NAME=value.");
         o.env.emplace_back(v);
     }},
    {'w', "workdir", "DIR", "its working directory",
     [](options& o, text v) { o.workdir = std::string(v); }},
    {'u', "user", "USER[:GROUP]", "numbers, or names of its own /etc/passwd",
     [](options& o, text v) { o.user = std::string(v); }},
    {'t', "tty", "",
     "a terminal of its own (default: if stdin and stdout\n"
     "are terminals)",
     [](options& o, text) { o.terminal = terminal_choice::always; }},
    {0, "no-tty", "", "none: stdin, stdout, stderr are passed on as they are",
     [](options& o, text) { o.terminal = terminal_choice::never; }},
    {'i', "interactive", "", "accepted out of habit: stdin is always passed on",
     [](options&, text) {}},

    {.help = "Privileges"},
    {0, "cap-add", "NAME", "a capability beyond the default ones, or all",
     [](options& o, text v) { o.capabilities |= parse_capabilities(v); }},
    {0, "cap-drop", "NAME", "one that it shall not have, or all",
     [](options& o, text v) { o.capabilities -= parse_capabilities(v); }},

    {.help = "What is shown"},
    {0, "events", "", "what happens to its control group, on stderr",
     [](options& o, text) { o.events = true; }},
    {0, "timeline", "", "where the time of the start went, on stderr",
     [](options& o, text) { o.timeline = true; }},
    {0, "verbose", "", "what was found and chosen, on stderr",
     [](options& o, text) { o.verbose = true; }},
    {0, "version", "", "the version", [](options& o, text) { o.version = true; }},
    {'h', "help", "", "this", [](options& o, text) { o.help = true; }},
};

std::size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 0; i < a.size(); ++i) {
        std::size_t diagonal = row[0]++;
        for (std::size_t j = 0; j < b.size(); ++j) {
            const std::size_t above = row[j + 1];
            row[j + 1] = std::min({above + 1, row[j] + 1, diagonal + (a[i] == b[j] ? 0U : 1U)});
            diagonal = above;
        }
    }
    return row.back();
}

[[noreturn]] void refuse_unknown(std::string_view given, std::string_view name) {
    std::string message = "unknown option '" + std::string(given) + "'";
    const auto closest = std::ranges::min_element(table, {}, [&](const option& o) {
        return o.name.empty() ? std::size_t{1000} : edit_distance(name, o.name);
    });
    if (name.size() > 2 && edit_distance(name, closest->name) <= 2)
        message += ": did you mean --" + std::string(closest->name) + "?";
    else
        message += ": --help lists them.";
    throw usage_error(message);
}

void apply(const option& found, options& to, std::string_view value) {
    try {
        found.apply(to, value);
    } catch (const kumiki::error& refused) {
        throw usage_error("--" + std::string(found.name) + ": " + refused.what());
    }
}

/// The arguments, one by one.
class reader {
  public:
    reader(int argc, char** argv) : rest_(argv + 1, argv + argc) { std::ranges::reverse(rest_); }

    bool at_option() const {
        return !rest_.empty() && rest_.back().size() > 1 && rest_.back().front() == '-';
    }
    std::string_view take() {
        const std::string_view first = rest_.back();
        rest_.pop_back();
        return first;
    }
    std::string_view value_of(const option& which) {
        if (rest_.empty())
            throw usage_error("--" + std::string(which.name) +
                              " needs a value: " + std::string(which.value));
        return take();
    }
    std::vector<std::string> remaining() const { return {rest_.rbegin(), rest_.rend()}; }

  private:
    std::vector<std::string_view> rest_;  // the next one is at the back
};

void parse_long(reader& arguments, options& into, std::string_view given) {
    const std::string_view body = given.substr(2);
    const auto equals = body.find('=');
    const std::string_view name = body.substr(0, equals);
    const auto found =
        std::ranges::find_if(table, [&](const option& o) { return o.apply && o.name == name; });
    if (found == std::end(table)) refuse_unknown(given.substr(0, 2 + name.size()), name);
    if (found->value.empty() && equals != std::string_view::npos)
        throw usage_error("--" + std::string(name) + " takes no value");
    if (found->value.empty())
        apply(*found, into, {});
    else
        apply(*found, into,
              equals != std::string_view::npos ? body.substr(equals + 1)
                                               : arguments.value_of(*found));
}

/// "-i", "-it", "-p 80:80", "-p80:80".
void parse_short(reader& arguments, options& into, std::string_view given) {
    for (std::size_t i = 1; i < given.size(); ++i) {
        const auto found = std::ranges::find_if(
            table, [&](const option& o) { return o.letter != 0 && o.letter == given[i]; });
        if (found == std::end(table))
            refuse_unknown(given.size() == 2
                               ? std::string(given)
                               : std::string("-") + given[i] + "' in '" + std::string(given),
                           {});
        if (found->value.empty()) {
            apply(*found, into, {});
            continue;
        }
        apply(*found, into,
              i + 1 < given.size() ? given.substr(i + 1) : arguments.value_of(*found));
        return;
    }
}

}  // namespace

std::string options::network_name() const {
    if (!network.empty()) return network;
    const bool asked = subnet || subnet6 || !publish.empty() || !allow_from.empty() || egress;
    return asked ? "kumiki" : "none";
}

options parse_options(int argc, char** argv) {
    options parsed;
    reader arguments(argc, argv);
    while (arguments.at_option()) {
        const std::string_view given = arguments.take();
        if (given == "--") break;
        if (given.starts_with("--"))
            parse_long(arguments, parsed, given);
        else
            parse_short(arguments, parsed, given);
    }
    parsed.command = arguments.remaining();
    return parsed;
}

void check_options(const options& given) {
    const std::string network = given.network_name();
    if (network == "none" || network == "host")
        for (const auto& [is_given, option] : {std::pair{!given.publish.empty(), "--publish"},
                                               std::pair{!given.allow_from.empty(), "--allow-from"},
                                               std::pair{given.egress.has_value(), "--egress"},
                                               std::pair{given.subnet.has_value(), "--subnet"},
                                               std::pair{given.subnet6.has_value(), "--subnet6"}})
            if (is_given)
                throw usage_error(std::string(option) +
                                  " needs a bridge network: it does not go "
                                  "with --network " +
                                  network);
    if (!given.allow_from.empty() && given.publish.empty())
        throw usage_error("--allow-from speaks of published ports: there is no --publish");
    if (given.command.empty() && !given.rootfs.empty())
        throw usage_error(
            "no command: it follows behind the options, as in "
            "--rootfs DIR -- /bin/sh");
}

std::string help_text() {
    std::string help =
        "Usage: full_container [OPTION...] [--] COMMAND [ARGUMENT...]\n"
        "       full_container\n"
        "\n"
        "Runs COMMAND in a container of its own and ends with its exit status, or with\n"
        "128 plus the signal that killed it; 125 when the container cannot be started,\n"
        "126 when COMMAND cannot be executed, 127 when it is not there.\n"
        "Without arguments: a demonstration.\n";
    constexpr std::size_t column = 26;
    for (const option& o : table) {
        if (o.name.empty()) {
            help += "\n" + std::string(o.help) + ":\n";
            continue;
        }
        std::string line = o.letter != 0 ? std::string("  -") + o.letter + ", --" : "      --";
        line += o.name;
        if (!o.value.empty()) line += " " + std::string(o.value);
        // A long one has its explanation on the lines below.
        line += line.size() < column ? std::string(column - line.size(), ' ')
                                     : "\n" + std::string(column, ' ');
        const auto lines = split(o.help, '\n');
        for (std::size_t i = 0; i < lines.size(); ++i) {
            if (i != 0) line += "\n" + std::string(column, ' ');
            line += lines[i];
        }
        help += line + "\n";
    }
    return help +
           "\n"
           "Examples:\n"
           "  full_container sh\n"
           "  full_container --memory 64M --cpus 0.5 --pids 32 -- cat /proc/self/cgroup\n"
           "  full_container -p 8080:80 --allow-from 192.0.2.0/24 --egress none \\\n"
           "      -- httpd -f -h /www\n"
           "  full_container --rootfs /srv/debian --read-only --tmpfs /tmp -u www-data -- id\n";
}

}  // namespace example
