// A root filesystem without an image: assembled on an empty tmpfs from the host's own directories,
// a file from memory and a tmpfs, and looked at from inside. As root:
//
//   $ ./11_rootfs
//   /              tmpfs     writable
//   /usr           the host  read-only
//   /etc/passwd    memory    read-only
//   /tmp           tmpfs     writable
//   the host sees no mount more than before
//   then, while it runs: /mnt/live came and went
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include <fmt/format.h>

#include <kumiki/kumiki.hpp>

using namespace kumiki;
using namespace kumiki::literals;

/// How the kernel shows the mount at `place` to the process `pid`: the fields of mountinfo.
std::vector<std::string> mount_at(const std::string& pid, std::string_view place) {
    const std::string all = sys::read_file_at(AT_FDCWD, "/proc/" + pid + "/mountinfo");
    for (const std::string_view line : split(all, '\n')) {
        const auto fields = split(line, ' ');
        if (fields.size() > 6 && fields[4] == place) return {fields.begin(), fields.end()};
    }
    return {};
}

void show(const std::string& pid, const char* place) {
    const auto fields = mount_at(pid, place);
    if (fields.empty()) throw error(ENOENT, {.operation = "find the mount", .object = place});
    const auto dash = std::find(fields.begin(), fields.end(), "-");
    const bool whole = fields[3] == "/" || fields[3] == "/root";
    const char* kind = *(dash + 1) != "tmpfs" ? "the host" : whole ? "tmpfs" : "memory";
    fmt::print("{:14} {:9} {}\n", place, kind,
               fields[5].starts_with("ro") ? "read-only" : "writable");
}

task<int> run_container(scheduler& io) {
    const std::string before = sys::read_file_at(AT_FDCWD, "/proc/self/mountinfo");
    container_spec spec{
        .rootfs = rootfs::assembled({.size = 1_MiB}),
        .process = {.args = {"sleep", "60"}},
        .mounts = host_system(),  // /usr read-only, /bin and its like as the host has them
    };
    spec.mounts.push_back(file_mount{.target = "/etc/passwd", .content = "root:x:0:0::/:\n"});
    spec.mounts.push_back(tmpfs_mount{.target = "/tmp", .flags = mount_flag::nosuid});
    auto box = co_await container::start(io, std::move(spec));

    const std::string pid = std::to_string(box.pid());
    for (const char* place : {"/", "/usr", "/etc/passwd", "/tmp"}) show(pid, place);
    if (sys::read_file_at(AT_FDCWD, "/proc/self/mountinfo") == before)
        fmt::print("the host sees no mount more than before\n");

    mount_description live = tmpfs_mount{.target = "/mnt/live"};
    co_await box.mount(std::move(live));
    const bool came = !mount_at(pid, "/mnt/live").empty();
    co_await box.unmount("/mnt/live");
    const bool went = mount_at(pid, "/mnt/live").empty();
    if (came && went) fmt::print("then, while it runs: /mnt/live came and went\n");
    co_return 0;
}

int main() try {
    if (::geteuid() != 0) {
        fmt::print(stderr, "It takes root.\n");
        return 77;
    }
    scheduler io;
    return io.run(run_container(io));
} catch (const error& failure) {
    fmt::print(stderr, "{}\n", failure.what());
    return exit_status_of(failure);
}
