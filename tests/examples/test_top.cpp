// examples/19_top.cpp as somebody sees it who looks at a terminal, or at what a pipe carries away.
#include <sys/ioctl.h>

#include <cstring>

#include <kumiki/cgroup/root.hpp>
#include <kumiki/cgroup/stats.hpp>
#include <kumiki/core/scope_exit.hpp>

#include "examples/program.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace kumiki_test;

namespace {

program top(std::vector<std::string> arguments, program::on what = program::on::pipes) {
    return program(std::move(arguments), what, {}, KUMIKI_EXAMPLE_TOP);
}

/// Two groups below one of the test's own; in the one called "busy" a process that does nothing else.
class groups {
  public:
    groups()
        : root_(cgroup_root::open("kumiki-top-" + std::to_string(::getpid()))),
          busy_(root_.create("busy")), calm_(root_.create("calm")),
          inner_(cgroup::create(calm_, "inner")) {
        pid_ = sys::check(::fork(), "fork");
        if (pid_ == 0)
            for (volatile unsigned i = 0;;) i = i + 1;
        busy_.attach(pid_);
    }
    groups(const groups&) = delete;
    groups& operator=(const groups&) = delete;
    ~groups() {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    const std::string& path() const { return root_.group().path(); }
    void remove_calm() {
        inner_.destroy();
        calm_.destroy();
    }

  private:
    cgroup_root root_;
    cgroup busy_;
    cgroup calm_;
    cgroup inner_;
    pid_t pid_ = -1;
};

/// The words of the line of a table that begins with `name`.
std::vector<std::string> line_of(const std::string& table, std::string_view name) {
    for (const auto line : split(table, '\n')) {
        std::vector<std::string> words;
        for (const auto word : split(line, ' '))
            if (!word.empty()) words.emplace_back(word);
        if (!words.empty() && words.front() == name) return words;
    }
    return {};
}

std::string may_make_groups() { return ::geteuid() == 0 ? "" : "it takes root to make groups"; }

#define KUMIKI_GROUPS()                                                                            \
    if (const auto reason = may_make_groups(); !reason.empty()) KUMIKI_SKIP(reason)

}  // namespace

TEST_CASE("a plain table has the busiest group first, and what the kernel counted for it") {
    KUMIKI_GROUPS();
    const groups there;
    program running = top({"--once", "-d", "0.5", there.path()});
    const ending end = running.wait();
    INFO(end.out << end.err);
    CHECK(end.status == 0);
    CHECK(end.err.empty());
    CHECK(end.out.find('\033') == std::string::npos);
    const auto heading = line_of(end.out, "NAME");
    REQUIRE(heading.size() == 9);
    for (const char* name : {"busy", "calm", "inner"}) {
        const auto words = line_of(end.out, name);
        REQUIRE(words.size() == heading.size());
        const double percent = std::strtod(words[1].c_str(), nullptr);
        if (std::string_view(name) == "busy")
            CHECK((percent > 3 && percent < 130));
        else
            CHECK(percent == 0);
    }
    CHECK(end.out.find("busy") < end.out.find("calm"));
    for (const auto line : split(end.out, '\n')) CHECK(line.size() <= 80);
}

TEST_CASE("-n prints that many tables, without a group that has gone meanwhile") {
    KUMIKI_GROUPS();
    groups there;
    program running = top({"-n", "2", "-d", "0.5", there.path()});
    REQUIRE(running.shows("calm"));
    there.remove_calm();
    const ending end = running.wait();
    CHECK(end.status == 0);
    const auto second = end.out.rfind("NAME");
    REQUIRE(second != end.out.find("NAME"));
    CHECK(end.out.find("busy", second) != std::string::npos);
    CHECK(end.out.find("calm", second) == std::string::npos);
}

TEST_CASE("a place without groups is an empty table") {
    program running = top({"--once", "-d", "0.1", "/no/such/group"});
    const ending end = running.wait();
    CHECK(end.status == 0);
    CHECK(end.out.find("no container runs") != std::string::npos);
}

TEST_CASE("arguments that mean nothing are refused with the usage") {
    for (const auto& arguments : std::vector<std::vector<std::string>>{
             {"--twice"}, {"-n", "0"}, {"-n"}, {"-d", "fast"}, {"a", "b"}}) {
        program running = top(arguments);
        const ending end = running.wait();
        CHECK(end.status == 2);
        CHECK(end.err.starts_with("usage: "));
        CHECK(end.out.empty());
    }
}

TEST_CASE("on every way out the terminal is as it was before") {
    KUMIKI_GROUPS();
    const groups there;
    struct way_out {
        const char* typed;
        int signal;
        int status;
    };
    for (const way_out& way :
         {way_out{"q", 0, 0}, way_out{"\003", 0, 0}, way_out{nullptr, SIGINT, 0},
          way_out{nullptr, SIGTERM, 128 + SIGTERM}}) {
        program running = top({"-d", "0.2", there.path()}, program::on::terminal);
        termios before{};
        REQUIRE(::tcgetattr(running.slave(), &before) == 0);
        REQUIRE(running.shows("busy"));
        termios during{};
        REQUIRE(::tcgetattr(running.slave(), &during) == 0);
        CHECK((during.c_lflag & (ICANON | ECHO)) == 0);
        if (way.typed != nullptr)
            running.write(way.typed);
        else
            running.signal(way.signal);
        REQUIRE(running.shows("\033[?1049l"));
        const ending end = running.wait();
        CHECK(end.status == way.status);
        termios after{};
        REQUIRE(::tcgetattr(running.slave(), &after) == 0);
        CHECK(std::memcmp(&before, &after, sizeof before) == 0);
        CHECK(end.out.find("\033[?1049h") < end.out.find("busy"));
        CHECK(end.out.rfind("\033[?25h") > end.out.rfind("busy"));
    }
}

TEST_CASE("a terminal that gets another size is drawn for that size at once") {
    KUMIKI_GROUPS();
    const groups there;
    program running = top({"-d", "60", there.path()}, program::on::terminal);  // no refresh helps
    REQUIRE(running.shows("THROT%"));
    REQUIRE(running.shows("psi:mem"));
    const auto drawn = running.output().size();
    const winsize narrow{.ws_row = 24, .ws_col = 40, .ws_xpixel = 0, .ws_ypixel = 0};
    REQUIRE(::ioctl(running.terminal(), TIOCSWINSZ, &narrow) == 0);
    REQUIRE(running.shows("MEMORY    \033[0m"));  // the last column, and the heading's end
    running.write("q");
    REQUIRE(running.shows("\033[?1049l"));
    const std::string second = running.output().substr(drawn);
    CHECK(second.find("THROT%") == std::string::npos);
    CHECK(running.wait().status == 0);
}

TEST_CASE(
    "with controllers the table has memory, processes and throttling as the kernel counts [vm]",
    "[vm]") {
    KUMIKI_GROUPS();
    auto root = cgroup_root::open("kumiki-top-" + std::to_string(::getpid()));
    constexpr auto needed = controllers::memory | controllers::cpu | controllers::pids;
    if (!has(root.available(), needed)) KUMIKI_SKIP("no memory, cpu and pids controllers in v2");
    const cgroup slow = root.create("slow", {.memory = 64_MiB, .cpu = cpus(0.1), .pids = 8});
    const pid_t child = sys::check(::fork(), "fork");
    if (child == 0) {
        std::vector<char> held(16 << 20, 'x');
        slow.attach(::getpid());
        held.assign(held.size() * 2, 'y');  // 32 MiB that are charged to the group
        for (volatile unsigned i = 0;;) i = i + 1;
    }
    const scope_exit end_of_child([&]() noexcept {
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
    });
    for (int i = 0; i < 100 && read_stats(slow).memory_current->count < (32U << 20); ++i)
        ::usleep(100'000);
    program running = top({"--once", "-d", "2", root.group().path()});
    const ending end = running.wait();
    INFO(end.out << end.err);
    const auto words = line_of(end.out, "slow");
    REQUIRE(words.size() == 9);
    const auto figure = [&](std::size_t i) { return std::strtod(words[i].c_str(), nullptr); };
    CHECK((figure(1) > 5 && figure(1) < 15));  // of the 10 % that it may have
    CHECK(words[2].ends_with("M"));
    CHECK((figure(2) >= 32 && figure(2) < 40));
    CHECK(words[3] == "1");
    CHECK(figure(5) > 80);
}
