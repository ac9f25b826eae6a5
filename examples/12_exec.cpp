// A second command in a running container: where it is, by the witness of /proc, and what it says.
// As root; ROOTFS is this host's own by default, below an overlay that keeps it as it is:
//
//   example_12_exec [ROOTFS]
//
//   $ example_12_exec
//   mount    the container's, not the host's
//   ...
//   cgroup   the container's: /kumiki/exec-demo
//   it says  two words for box, process 3
//   it ended with status 7, and with nothing on its standard error
#include <unistd.h>

#include <string>

#include <fmt/format.h>

#include <kumiki/kumiki.hpp>

using namespace kumiki;

// What a link in /proc says: "uts:[4026531838]".
static std::string link_of(const std::string& process, std::string_view name) {
    char text[64] = {};
    const std::string path = "/proc/" + process + "/ns/" + std::string(name);
    return ::readlink(path.c_str(), text, sizeof text - 1) > 0 ? text : "";
}

static std::string cgroup_of(const std::string& process) {
    std::string text = sys::read_file_at(AT_FDCWD, "/proc/" + process + "/cgroup");
    text.erase(0, text.find("0::") + 3);  // the line of cgroup v2
    return text.substr(0, text.find('\n'));
}

static task<int> show_exec(scheduler& io, std::string root) {
    container_spec spec{
        .name = "exec-demo",
        .rootfs = rootfs::overlay(std::move(root)),
        .process = {.args = {"sleep", "60"},
                    .stdio = {stdio::null(), stdio::null(), stdio::null()},
                    .init = init_process::reaper},
        .hostname = "box",
    };
    auto box = co_await container::start(io, std::move(spec));

    exec_spec wanted{
        .args = {"sh", "-c", "read words; echo \"$words for $(hostname), process $$\"; exit 7"},
        .stdio = {stdio::pipe(), stdio::pipe(), stdio::pipe()},
    };
    auto process = co_await box.exec(std::move(wanted));  // it waits for its input now

    const std::string first = std::to_string(box.pid());
    const std::string second = std::to_string(process.pid());
    for (const auto& info : namespace_kinds) {
        const std::string is = link_of(second, info.proc_name);
        fmt::print("{:<9}{}, {} the host's\n", info.name,
                   is == link_of(first, info.proc_name) ? "the container's" : "another",
                   is == link_of("self", info.proc_name) ? "and also" : "not");
    }
    const bool same =
        cgroup_of(first) == cgroup_of(second) && cgroup_of(first) != cgroup_of("self");
    fmt::print("cgroup   {}\n", same ? "of the container's own" : "another");

    // Feeds it, reads both outputs at once up to a bound, and waits for its end.
    auto seen = co_await capture(io, process, {.limit = {4096}, .input = "two words\n"});
    fmt::print("it says  {}", seen.out.text);
    fmt::print("it ended with status {}, and with {} on its standard error\n", seen.result.code,
               seen.err.text.empty() ? "nothing" : seen.err.text);
    auto ended = co_await box.stop(std::chrono::seconds(5));  // the init hands SIGTERM on
    fmt::print("the container ended by signal {}\n", ended.status.signal);
    co_return 0;
}

int main(int argc, char** argv) {
    if (::geteuid() != 0) {
        fmt::print(stderr, "It takes root.\n");
        return 77;
    }
    try {
        scheduler io;
        return io.run(show_exec(io, argc > 1 ? argv[1] : "/"));
    } catch (const error& failure) {
        fmt::print(stderr, "{}\n", failure.what());
        return exit_status_of(failure);
    }
}
