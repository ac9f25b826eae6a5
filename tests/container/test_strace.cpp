// strace(1) as the witness of a start: what the kernel was asked for by the child, call by call and
// argument by argument, against what its plan says; and that nothing but the payload is executed.
//
// The test runs its own program a second time under strace, with the hidden test at the end of this
// file, which starts one container and writes down the plan that the child was given.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <kumiki/container/container.hpp>
#include <kumiki/container/plan_text.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/run_program.hpp"

using namespace kumiki;
using kumiki_test::run_program;
namespace fs = std::filesystem;

namespace {

constexpr const char* place_variable = "KUMIKI_TEST_TRACE_PLACE";
constexpr const char* mode_variable = "KUMIKI_TEST_TRACE_MODE";
constexpr const char* kind_variable = "KUMIKI_TEST_TRACE_KIND";

// --- what the traced program writes and the witness reads

/// A step, with what it points to.
struct written_step {
    step is{};
    std::string name;
    std::vector<std::string> texts;  ///< of exec: candidates; of make_path: the path
    std::vector<long> numbers;  ///< of close_others: what is kept; of make_path: is a directory;
        ///< of allow_path: the rights of files
};

void write_plan(child_program& program, void* context) {
    std::ofstream out(*static_cast<const std::string*>(context));
    for (std::size_t i = 0; i < program.count; ++i) {
        const step& s = program.steps[i];
        out << call_name(s) << ' ' << static_cast<int>(s.kind) << ' ' << static_cast<int>(s.result)
            << ' ' << static_cast<int>(s.slots) << ' ' << s.tolerated << ' ' << s.skip << ' '
            << s.number;
        for (const long argument : s.arguments) out << ' ' << argument;
        if (s.kind == step_kind::close_others) {
            const auto* kept = reinterpret_cast<const int*>(s.arguments[0]);
            for (long k = 0; k < s.arguments[1]; ++k) out << ' ' << kept[k];
        }
        if (s.kind == step_kind::make_path) {
            const auto* walk = reinterpret_cast<const path_walk*>(s.arguments[1]);
            out << ' ' << walk->directory << " |" << walk->path;
        }
        if (s.kind == step_kind::inspect) {
            const auto* path = reinterpret_cast<const char* const*>(s.arguments[0]);
            for (; *path != nullptr; ++path) out << " |" << *path;
        }
        if (s.kind == step_kind::allow_path)
            out << ' ' << reinterpret_cast<const allowed_path*>(s.arguments[1])->file_rights;
        if (s.kind == step_kind::exec) {
            const auto* command = reinterpret_cast<const exec_candidates*>(s.arguments[0]);
            for (const char* const* path = command->paths; *path != nullptr; ++path)
                out << " |" << *path;
        }
        out << '\n';
    }
}

std::vector<written_step> read_plan(const std::string& file) {
    std::vector<written_step> steps;
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        written_step one;
        std::istringstream fields(line);
        int kind = 0;
        int result = 0;
        int slots = 0;
        fields >> one.name >> kind >> result >> slots >> one.is.tolerated >> one.is.skip >>
            one.is.number;
        for (long& argument : one.is.arguments) fields >> argument;
        one.is.kind = static_cast<step_kind>(kind);
        one.is.result = static_cast<std::int8_t>(result);
        one.is.slots = static_cast<std::uint8_t>(slots);
        for (std::string field; fields >> field;) {
            if (field.front() == '|')
                one.texts.push_back(field.substr(1));
            else
                one.numbers.push_back(std::stol(field));
        }
        steps.push_back(one);
    }
    return steps;
}

// --- what strace saw

struct traced_call {
    long number = -1;
    std::string name;
    std::string arguments;
    std::vector<unsigned long> values;
    long result = 0;  ///< a negative errno on failure
    std::string line;
};

/// A line of `strace -n -e raw=!execve`: `[ 257] openat(0xffffff9c, 0x55d0, 0x80000, 0) = 0x5`.
std::optional<traced_call> parse_call(const std::string& line) {
    traced_call call;
    call.line = line;
    const auto bracket = line.find(']');
    const auto open = line.find('(');
    const auto equals = line.rfind(" = ");
    if (line.empty() || line[0] != '[' || bracket == std::string::npos || open == std::string::npos)
        return std::nullopt;
    call.number = std::stol(line.substr(1, bracket - 1));
    call.name = line.substr(bracket + 2, open - bracket - 2);
    const auto end = line.rfind(')', equals);
    call.arguments = line.substr(open + 1, end - open - 1);
    for (const auto field : split(call.arguments, ','))
        call.values.push_back(std::strtoul(std::string(trim(field)).c_str(), nullptr, 0));
    if (equals != std::string::npos) {
        const std::string result = line.substr(equals + 3);
        call.result = static_cast<long>(std::strtoul(result.c_str(), nullptr, 0));
        if (result.starts_with("-1 ")) {
            call.result = -1;
            for (int code = 1; code < 134; ++code)
                if (result.find(" " + errno_name(code) + " ") != std::string::npos ||
                    result.find("(errno " + std::to_string(code) + ")") != std::string::npos)
                    call.result = -code;
        }
    }
    return call;
}

std::vector<traced_call> read_trace(const fs::path& file) {
    std::vector<traced_call> calls;
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);)
        if (auto call = parse_call(line)) calls.push_back(*call);
    return calls;
}

/// An argument that is not in the plan: an address on the child's stack.
constexpr auto anything = std::nullopt;

/// Carries out a plan as the child's interpreter does, but its system calls are looked up in the
/// trace: each must be the next one there.
class kernel_witness {
  public:
    explicit kernel_witness(std::vector<traced_call> calls) : calls_(std::move(calls)) {}

    void carry_out(const std::vector<written_step>& steps) {
        for (std::size_t i = 0; i < steps.size(); ++i) {
            const written_step& s = steps[i];
            INFO("step " << i << " of the plan: " << s.name);
            const long result = one(s);
            if (result < 0) {
                REQUIRE(result == -s.is.tolerated);
                i += s.is.skip;
            } else if (s.is.result != no_slot) {
                auto& slot = slots_.at(static_cast<std::size_t>(s.is.result));
                slot = result;
                // strace does not show which number a received descriptor has got
                if (s.is.kind == step_kind::receive_slot) slot = anything;
            }
        }
    }

  private:
    using wanted = std::optional<long>;

    long next(const std::string& name, long number, const std::vector<wanted>& arguments) {
        while (next_ < calls_.size() && calls_[next_].name == "clock_gettime" &&
               calls_[next_].values.front() == 1)
            ++next_;  // the stamp between two phases
        REQUIRE(next_ < calls_.size());
        const traced_call& call = calls_[next_++];
        INFO("the trace has: " << call.line);
        CHECK(call.name == name);
        REQUIRE(call.number == number);
        for (std::size_t i = 0; i < call.values.size() && i < arguments.size(); ++i) {
            INFO("argument " << i);
            if (!arguments[i]) continue;
            const auto value = static_cast<unsigned long>(*arguments[i]);
            if (call.values[i] != value)  // strace shows an int in 32 bits
                CHECK(call.values[i] == static_cast<std::uint32_t>(value));
        }
        return call.result;
    }

    long one(const written_step& s) {
        std::vector<wanted> a;
        for (unsigned i = 0; i < 6; ++i)
            a.emplace_back((s.is.slots >> i & 1) != 0
                               ? slots_.at(static_cast<std::size_t>(s.is.arguments[i]))
                               : wanted(s.is.arguments[i]));
        switch (s.is.kind) {
        case step_kind::call:
            return next(s.name, s.is.number, a);
        case step_kind::close_others:
            return close_others(s.numbers);
        case step_kind::make_path:
            return make_path(*a[0], s.texts.empty() ? "" : s.texts.front(), s.numbers.at(0) != 0);
        case step_kind::await_byte: {
            CHECK(next("ppoll", SYS_ppoll, {anything, 1}) == 1);
            CHECK(next("read", SYS_read, {a[0], anything, 1}) == 1);
            return 0;
        }
        case step_kind::receive_slot:
            CHECK(next("ppoll", SYS_ppoll, {anything, 1}) == 1);
            return next("recvmsg", SYS_recvmsg, {a[0], anything, long{MSG_CMSG_CLOEXEC}});
        case step_kind::send_slot:
            return next("sendmsg", SYS_sendmsg, {a[0], anything, long{MSG_NOSIGNAL}}) < 0 ? -1 : 0;
        case step_kind::hand_on:  // of an ordinary user's exec, which is not traced here
            return next("clone", SYS_clone, {anything, 0, a[0], 0, 0});
        case step_kind::inspect:
            return inspect(s.texts.size());
        case step_kind::allow_path:
            return allow_path(*a[0], s.numbers.at(0) != 0);
        case step_kind::verify_text:
            return next("pread64", SYS_pread64, {a[0]}) < 0 ? -1 : 0;
        case step_kind::exec:
            return exec(s.texts);
        }
        return -ENOSYS;
    }

    long close_others(const std::vector<long>& kept) {
        long first = 3;
        for (std::size_t i = 0; i <= kept.size(); ++i) {
            const long last = i < kept.size() ? kept[i] - 1 : 0xffffffffL;
            if (first <= last) CHECK(next("close_range", 436, {first, last, 0}) == 0);
            if (i < kept.size()) first = kept[i] + 1;
        }
        return 0;
    }

    long open_inside(long root) { return next("openat2", 437, {root, anything, anything}); }

    long make_path(long root, const std::string& path, bool directory) {
        long fd = open_inside(root);
        if (fd != -ENOENT) return fd;
        long parent = root;
        const auto names = split(path, '/');
        for (std::size_t i = 0; i < names.size(); ++i) {
            const bool last = i + 1 == names.size();
            fd = open_inside(root);
            if (fd == -ENOENT) {
                if (last && !directory) {
                    const long made = next("openat", SYS_openat, {parent, anything});
                    if (made < 0) return made;
                    next("close", SYS_close, {made});
                } else {
                    const long made = next("mkdirat", SYS_mkdirat, {parent, anything, 0755});
                    if (made < 0) return made;
                }
                fd = open_inside(root);
            }
            if (parent != root) next("close", SYS_close, {parent});
            if (fd < 0) return fd;
            parent = fd;
        }
        return fd;
    }

    /// Of candidates that are no scripts.
    long inspect(std::size_t candidates) {
        for (std::size_t i = 0; i < candidates; ++i) {
            const long fd = open_inside(AT_FDCWD);
            if (fd < 0) continue;
            next("read", SYS_read, {fd, anything, 256});
            next("close", SYS_close, {fd});
        }
        return 0;
    }

    long allow_path(long ruleset, bool has_file_rights) {
        const long fd = next("openat2", 437, {long{AT_FDCWD}, anything, anything});
        if (fd < 0) return fd;
        const std::vector<wanted> arguments{ruleset, 1, anything, 0};
        long result = next("landlock_add_rule", 445, arguments);
        if (result == -EINVAL && has_file_rights)
            result = next("landlock_add_rule", 445, arguments);
        next("close", SYS_close, {fd});
        return result;
    }

    long exec(const std::vector<std::string>& candidates) {
        for (const std::string& candidate : candidates) {
            const long result = next("execve", SYS_execve, {});
            CHECK(calls_[next_ - 1].arguments.starts_with("\"" + candidate + "\""));
            if (result == 0) return 0;
        }
        return -ENOENT;
    }

    std::vector<traced_call> calls_;
    std::size_t next_ = 0;
    std::vector<wanted> slots_ = std::vector<wanted>(slot_count, 0);
};

// --- running it

std::string contents(const fs::path& file) {
    std::ifstream in(file);
    return {std::istreambuf_iterator<char>(in), {}};
}

bool can_trace(const std::string& place) {
    return run_program({"strace", "-n", "-o", "/dev/null", "true"}, place + "/probe") == 0;
}

container_spec traced_spec(const kumiki_test::busybox_root& root, const std::string& kind) {
    auto spec = kumiki_test::shell_spec(root, "");
    spec.process.args = {"true"};
    spec.process.env = {"PATH=/nowhere:/etc/passwd:/bin"};  // ENOENT, ENOTDIR, found
    if (kind == "everything") {
        spec.user_namespace = kumiki_test::mapped_ids();
        spec.time_namespace = clock_offsets{.monotonic = std::chrono::seconds(1000)};
        spec.process.terminal = terminal_size{};
        spec.process.oom_score_adj = 500;
        spec.process.user = {1000, 1000};
        spec.process.ambient = capability::net_bind_service;
        spec.process.landlock = landlock_rules{
            .paths = {{"/bin", landlock_access::read | landlock_access::execute},
                      {"/etc/passwd", landlock_access::read}},  // no directory: asked twice
            .support = landlock_support::best_effort};
        spec.mounts = {tmpfs_mount{.target = "/run/made/on/the/way"},
                       bind_mount{.source = "/etc/passwd", .target = "/run/file"}};
    }
    return spec;
}

}  // namespace

TEST_CASE("under strace a child makes its plan's system calls and no others") {
    const kumiki_test::temporary_directory place;
    if (!can_trace(place.path())) KUMIKI_SKIP("strace is not installed, or may not trace here");
    const std::string mode = GENERATE("shared", "own");
    const std::string kind = GENERATE("plain", "everything");
    CAPTURE(mode);
    CAPTURE(kind);

    const std::string self = fs::read_symlink("/proc/self/exe").string();
    const int status = run_program({"env", place_variable + ("=" + place.path()),
                                    mode_variable + ("=" + mode), kind_variable + ("=" + kind),
                                    "ASAN_OPTIONS=detect_leaks=0",  // its tracer would meet strace
                                    "strace", "-ff", "-n", "-e", "raw=!execve", "-o",
                                    place.path() + "/trace", self, "[traced]"},
                                   place.path() + "/output");
    INFO(contents(place.path() + "/output"));
    REQUIRE(status == 0);

    const std::string pid = contents(place.path() + "/pid");
    const auto steps = read_plan(place.path() + "/plan");
    REQUIRE(steps.size() > 100);
    const auto child = read_trace(place.path() + "/trace." + pid);
    REQUIRE(child.size() >= steps.size());
    kernel_witness(child).carry_out(steps);

    // The supervisor executes nothing: its one execve is strace's own, of the program itself.
    int executed = 0;
    for (const auto& entry : fs::directory_iterator(place.path())) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with("trace.")) continue;
        for (const traced_call& call : read_trace(entry.path()))
            if (call.name.starts_with("execve") && call.result == 0) {
                ++executed;
                CAPTURE(call.line);
                const std::string wanted = name == "trace." + pid ? "/bin/true" : self;
                CHECK(call.arguments.starts_with("\"" + wanted + "\""));
            }
    }
    CHECK(executed == 2);
}

TEST_CASE("starts one container for the witness", "[.][traced]") {
    const char* place = std::getenv(place_variable);
    const char* mode = std::getenv(mode_variable);
    const char* kind = std::getenv(kind_variable);
    REQUIRE((place != nullptr && mode != nullptr && kind != nullptr));
    const kumiki_test::busybox_root root;
    auto spec = traced_spec(root, kind);
    spec.clone = std::string(mode) == "shared" ? clone_mode::shared_memory : clone_mode::own_memory;
    std::string plan_file = std::string(place) + "/plan";
    scheduler io;
    auto parts = io.run(detail::launch(io, std::move(spec), {write_plan, &plan_file}));
    std::ofstream(std::string(place) + "/pid") << parts->pid;
    CHECK(sys::wait_blocking(parts->pidfd.get()).shell_status() == 0);
    parts->pidfd.reset();
    parts->release();
}
