// A live `top` of containers: every group below kumiki's own, with what it used since the last look.
//
//   example_19_top [-d SECONDS] [-n TABLES | --once] [GROUP]
//
// q or Ctrl-C ends it. Without a terminal, and with -n or --once, it prints plain tables:
//
//   NAME                   CPU%   MEMORY  PIDS     IO/s  THROT%  psi:mem   cpu    io
//   limits                 50.1    1.20M     2        0    98.7      0.0  12.3   0.0
//   web                     0.3    24.6M     4    1.20M       -      0.0   0.0   0.0
//
// THROT% is how many of the periods of cpu.max were cut short; the last three columns are pressure: the
// share of the last 10 s in which some process waited for that. "-": this host's cgroup v2 does not count it.
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include <fmt/format.h>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/signals.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/cgroup/hierarchy.hpp>
#include <kumiki/cgroup/pressure.hpp>
#include <kumiki/cgroup/stats.hpp>

using namespace kumiki;
using std::chrono::steady_clock;

// --- what is counted, and what becomes of two looks at it

struct sample {
    cgroup_stats stats{};
    std::optional<std::uint64_t> io_bytes{};  ///< read and written, of all devices
    std::optional<double> waits[3]{};  ///< for memory, processors, io: percent of 10 s
    steady_clock::time_point time{};
};

sample look(const cgroup& group) {
    sample seen{.stats = read_stats(group), .time = steady_clock::now()};
    if (const auto text = group.try_read("io.stat")) {
        std::uint64_t sum = 0;
        for (const auto line : split(*text, '\n'))
            for (const auto field : split(line, ' '))
                if (field.starts_with("rbytes=") || field.starts_with("wbytes="))
                    sum += parse_number<std::uint64_t>(field.substr(7)).value_or(0);
        seen.io_bytes = sum;
    }
    for (const auto of : {pressure_resource::memory, pressure_resource::cpu, pressure_resource::io})
        if (const auto now = read_pressure(group, of))
            seen.waits[static_cast<std::size_t>(of)] = now->some.average_10 / 100.0;
    return seen;
}

struct rates {
    double cpu = 0;  ///< percent of one processor
    std::optional<double> io{};  ///< bytes in a second
    std::optional<double> throttled{};  ///< percent of the periods of cpu.max; only where it is set
};

rates between(const sample& before, const sample& now) {
    const double wall = std::chrono::duration<double>(now.time - before.time).count();
    rates found;
    if (wall <= 0) return found;
    if (now.stats.cpu_usage && before.stats.cpu_usage) {
        const std::chrono::duration<double> used = *now.stats.cpu_usage - *before.stats.cpu_usage;
        found.cpu = 100 * used.count() / wall;
    }
    if (now.io_bytes && before.io_bytes)
        found.io = static_cast<double>(*now.io_bytes - *before.io_bytes) / wall;
    if (now.stats.cpu_periods && before.stats.cpu_periods) {
        const auto all = *now.stats.cpu_periods - *before.stats.cpu_periods;
        const auto cut = *now.stats.cpu_throttled_periods - *before.stats.cpu_throttled_periods;
        found.throttled =
            all == 0 ? 0 : 100.0 * static_cast<double>(cut) / static_cast<double>(all);
    }
    return found;
}

struct row {
    std::string name{};
    sample now{};
    rates since{};
};

/// All groups below one directory, as they were at the last refresh.
class board {
  public:
    explicit board(std::string directory) : directory_(std::move(directory)) {}

    void refresh() {
        std::map<std::uint64_t, sample> now;  // by the group's number: a name can come again
        rows_.clear();
        walk(directory_, now);
        last_ = std::move(now);
        // The busiest first, each followed by the groups in it.
        std::map<std::string_view, double> busy;
        for (const row& each : rows_) busy.emplace(each.name, each.since.cpu);
        const auto key = [&](const row& each) {
            const auto top = std::string_view(each.name).substr(0, each.name.find('/'));
            return std::tuple(-busy[top], top, std::string_view(each.name));
        };
        std::vector<row> sorted = rows_;
        std::ranges::sort(sorted, {}, key);
        rows_ = std::move(sorted);
    }
    const std::vector<row>& rows() const { return rows_; }
    const std::string& directory() const { return directory_; }

  private:
    void walk(const std::string& path, std::map<std::uint64_t, sample>& now) {
        std::error_code gone;  // groups come and go while they are listed
        for (std::filesystem::directory_iterator at(path, gone), end; at != end;
             at.increment(gone)) {
            if (!at->is_directory(gone)) continue;
            try {
                const auto group = cgroup::open(at->path().string());
                const std::uint64_t id = group.id();
                sample seen = look(group);
                const auto before = last_.find(id);
                const auto since = between(before == last_.end() ? seen : before->second, seen);
                rows_.push_back({group.path().substr(directory_.size() + 1), seen, since});
                now.emplace(id, std::move(seen));
                walk(at->path().string(), now);
            } catch (const error&) {}
        }
    }

    std::string directory_;
    std::map<std::uint64_t, sample> last_;
    std::vector<row> rows_;
};

// --- how it is shown

std::string amount(std::optional<double> bytes) {
    if (!bytes) return "-";
    double value = *bytes;
    const char* unit = "";
    for (const char* next : {"K", "M", "G", "T"}) {
        if (value < 1000) break;
        value /= 1024;
        unit = next;
    }
    return *unit == 0 ? fmt::format("{:.0f}", value)
                      : fmt::format("{:.{}f}{}", value,
                                    value < 10    ? 2
                                    : value < 100 ? 1
                                                  : 0,
                                    unit);
}
std::string percent(std::optional<double> value) {
    return value ? fmt::format("{:.1f}", *value) : "-";
}
std::optional<double> as_double(const std::optional<bytes>& value) {
    return value ? std::optional(static_cast<double>(value->count)) : std::nullopt;
}

/// How much of a share is worth a look: colours of the terminal, or nothing on plain paper.
struct palette {
    const char *head = "", *dim = "", *warm = "", *hot = "", *none = "";
};
constexpr palette colours{"\033[7m", "\033[2m", "\033[33m", "\033[31;1m", "\033[0m"};

struct column {
    const char* title;
    std::size_t width;
};
constexpr column columns[] = {{"CPU%", 7},   {"MEMORY", 9},  {"PIDS", 6}, {"IO/s", 9},
                              {"THROT%", 8}, {"psi:mem", 9}, {"cpu", 6},  {"io", 6}};

/// What is left for the names; a narrow terminal has fewer columns instead.
std::size_t name_width(std::size_t width) {
    std::size_t figures = 0;
    for (const column& each : columns) figures += each.width;
    return std::max<std::size_t>(width, figures + 20) - figures;
}

std::string heading(std::size_t width, const palette& paint) {
    std::string text = fmt::format("{:<{}}", "NAME", name_width(width));
    for (const column& each : columns)
        if (text.size() + each.width <= width)
            text += fmt::format("{:>{}}", each.title, each.width);
    return paint.head + fmt::format("{:<{}}", text, *paint.head == 0 ? 0 : width) + paint.none;
}

std::string line_of(const row& group, std::size_t width, const palette& paint) {
    const std::size_t names = name_width(width);
    const auto depth = static_cast<std::size_t>(std::ranges::count(group.name, '/'));
    std::string name(2 * depth, ' ');  // a group in a group stands below that
    name += group.name.substr(group.name.rfind('/') + 1);
    if (name.size() >= names) name = name.substr(0, names - 2) + "~";
    std::string text = fmt::format("{:<{}}", name, names);
    std::size_t used = names;
    const column* next = columns;
    const auto add = [&](std::string_view figure, double heat = 0) {
        const std::size_t size = (next++)->width;
        used += size;
        if (used > width) return;
        const char* paint_with = figure == "-" || figure == "0" || figure == "0.0" ? paint.dim
                                 : heat >= 20                                      ? paint.hot
                                 : heat >= 5                                       ? paint.warm
                                                                                   : paint.none;
        text += fmt::format("{}{:>{}}{}", paint_with, figure, size, paint.none);
    };
    const auto& [stats, io_bytes, waits, time] = group.now;
    add(percent(group.since.cpu));
    add(amount(as_double(stats.memory_current)));
    add(stats.pids_current ? std::to_string(*stats.pids_current) : "-");
    add(amount(group.since.io));
    add(percent(group.since.throttled), group.since.throttled.value_or(0));
    for (const auto& share : waits) add(percent(share), share.value_or(0));
    return text;
}

/// The terminal, with a screen of its own; as it was before when this ends.
class screen {
  public:
    screen() {
        sys::check(::tcgetattr(STDOUT_FILENO, &before_), "look at the terminal");
        enter();
    }
    screen(const screen&) = delete;
    screen& operator=(const screen&) = delete;
    ~screen() { leave(); }

    void enter() const {
        termios raw = before_;
        raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);  // keys at once, and not shown
        ::tcsetattr(STDOUT_FILENO, TCSANOW, &raw);
        put("\033[?1049h\033[?25l");
    }
    void leave() const {
        put("\033[?25h\033[?1049l");
        ::tcsetattr(STDOUT_FILENO, TCSANOW, &before_);
    }
    /// One frame in one write, so that nothing flickers.
    void draw(const board& groups, std::chrono::duration<double> every) const {
        winsize size{};
        ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
        const std::size_t width = size.ws_col != 0 ? size.ws_col : 80;
        const std::size_t height = size.ws_row != 0 ? size.ws_row : 24;
        double cpu = 0;
        for (const row& each : groups.rows())
            if (each.name.find('/') == std::string::npos) cpu += each.since.cpu;
        const auto count = groups.rows().size();
        std::string title =
            fmt::format("{}   {} group{}   cpu {:.1f} %   every {:g} s   q quits",
                        groups.directory(), count, count == 1 ? "" : "s", cpu, every.count());
        title.resize(std::min(title.size(), width));
        std::string frame = "\033[H" + title + "\033[K\r\n\033[K";
        frame += "\r\n" + heading(width, colours) + "\033[K";
        const std::size_t room = height > 4 ? height - 4 : 1;
        for (std::size_t i = 0; i < std::min(count, room); ++i)
            frame += "\r\n" + line_of(groups.rows()[i], width, colours) + "\033[K";
        if (count > room) frame += fmt::format("\r\n{} more\033[K", count - room);
        if (count == 0) frame += "\r\nno container runs\033[K";
        put(frame + "\033[J");
    }

  private:
    static void put(std::string_view text) {
        while (!text.empty()) {
            const auto size = ::write(STDOUT_FILENO, text.data(), text.size());
            if (size <= 0 && errno != EINTR) return;  // nobody looks any more
            text.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
        }
    }
    termios before_{};
};

// --- three things at once: the clock, the keys, the signals. The first to end is the end.

task<void> watch_clock(scheduler& io, board& groups, const screen& view,
                       std::chrono::duration<double> every) {
    for (;;) {
        groups.refresh();
        view.draw(groups, every);
        co_await io.sleep_for(std::chrono::duration_cast<std::chrono::nanoseconds>(every));
    }
}

task<void> watch_keys(scheduler& io) {
    if (::isatty(STDIN_FILENO) == 0)
        for (;;) co_await io.sleep_for(std::chrono::hours(24));
    for (;;) {
        co_await io.poll(STDIN_FILENO, POLLIN);
        char key = 0;
        if (::read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q') co_return;
    }
}

task<int> watch_signals(signal_stream& signals, const board& groups, const screen& view,
                        std::chrono::duration<double> every) {
    for (;;) {
        auto arrived = co_await signals.next();
        if (arrived->signal == SIGTSTP) {  // Ctrl-Z: the terminal is the shell's meanwhile
            view.leave();
            ::raise(SIGSTOP);
            view.enter();
        } else if (arrived->signal != SIGWINCH) {
            co_return arrived->signal;
        }
        view.draw(groups, every);
    }
}

task<int> live(scheduler& io, board& groups, std::chrono::duration<double> every) {
    signal_stream signals(io, {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP});
    const screen view;
    auto first = co_await when_any(watch_clock(io, groups, view, every), watch_keys(io),
                                   watch_signals(signals, groups, view, every));
    const int* signal = std::get_if<2>(&first);
    co_return signal == nullptr || *signal == SIGINT ? 0 : 128 + *signal;
}

task<int> tables(scheduler& io, board& groups, std::chrono::duration<double> every, long count) {
    groups.refresh();  // rates take two looks
    for (long i = 0; i < count; ++i) {
        co_await io.sleep_for(std::chrono::duration_cast<std::chrono::nanoseconds>(every));
        groups.refresh();
        if (i > 0) fmt::print("\n");
        fmt::print("{}\n", heading(80, {}));
        for (const row& each : groups.rows()) fmt::print("{}\n", line_of(each, 80, {}));
        if (groups.rows().empty()) fmt::print("no container runs\n");
        std::fflush(stdout);
    }
    co_return 0;
}

int main(int argc, char** argv) {
    long count = 0;
    double seconds = 1;
    std::string directory;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        const char* value = i + 1 < argc ? argv[i + 1] : "";
        if (word == "--once")
            count = 1;
        else if (word == "-n" && (count = std::strtol(value, nullptr, 10)) > 0)
            ++i;
        else if (word == "-d" && (seconds = std::strtod(value, nullptr)) >= 0.05 && seconds < 1e6)
            ++i;
        else if (!word.starts_with('-') && directory.empty())
            directory = word;
        else {
            fmt::print(stderr, "usage: {} [-d SECONDS] [-n TABLES | --once] [GROUP]\n", argv[0]);
            return 2;
        }
    }
    try {
        if (directory.empty()) directory = cgroup_hierarchy::find().mount().mount_point + "/kumiki";
        while (directory.size() > 1 && directory.ends_with('/')) directory.pop_back();
        board groups(directory);
        const std::chrono::duration<double> every(seconds);
        scheduler io;
        if (count == 0 && ::isatty(STDOUT_FILENO) != 0) return io.run(live(io, groups, every));
        return io.run(tables(io, groups, every, std::max(count, 1L)));
    } catch (const error& failure) {
        fmt::print(stderr, "{}\n", failure.what());
        return 1;
    }
}
