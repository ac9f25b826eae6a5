// The privileges of a container's process: capabilities, the system call filter, Landlock's rules.
// Runs a shell as user 1000 that keeps one capability and may use few files, on the host's own root
// as a layer that is not written to, and shows what the kernel says of it from inside. As root:
//
//   $ ./13_privileges
//   effective: CAP_NET_BIND_SERVICE
//   bounding: CAP_CHOWN,CAP_NET_BIND_SERVICE
//   no_new_privs: yes, system call filter: yes
//   /etc/hosts can be read
//   /etc/passwd is denied
//   a user namespace is denied
#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include <kumiki/kumiki.hpp>

using namespace kumiki;

constexpr const char* script = R"(
try() { what=$1; yes=$2; shift 2; "$@" >/dev/null 2>&1 && echo "$what $yes" || echo "$what is denied"; }
try /etc/hosts 'can be read' cat /etc/hosts
try /etc/passwd 'can be read' cat /etc/passwd
try 'a user namespace' 'can be made' unshare --user true
cat /proc/self/status
)";

task<int> look(scheduler& io) {
    using right = landlock_access;
    int ends[2];
    sys::check(::pipe2(ends, O_CLOEXEC), "pipe2");
    const unique_fd in(ends[0]);
    unique_fd out(ends[1]);
    container_spec spec{
        .rootfs = rootfs::overlay("/"),
        .process =
            {
                .args = {"sh", "-c", script},
                .user = {1000, 1000},
                .stdio = {0, out.get(), 2},
                .capabilities = {capability::chown, capability::net_bind_service},
                .ambient = capability::net_bind_service,  // kept, though the user is not root
                // .filter: unset, the default profile; .no_new_privs: true
                .landlock = landlock_rules{.paths = {{"/usr", right::read | right::execute},
                                                     {"/proc"},
                                                     {"/etc/hosts"},
                                                     {"/dev/null", right::write_file}},
                                           .support = landlock_support::best_effort},
            },
    };
    auto box = co_await container::start(io, std::move(spec));
    out.reset();
    std::string said;
    std::byte buffer[4096];
    for (;;) {
        auto size = co_await io.read(in.get(), buffer);
        if (size == 0) break;
        said.append(reinterpret_cast<const char*>(buffer), size);
    }
    auto result = co_await box.wait();

    const auto tries = said.find("Name:");  // the first line of the status
    const process_status now = parse_process_status(said.substr(tries));
    const auto yes = [](bool is) { return is ? "yes" : "no"; };
    fmt::print("effective: {}\n", to_string(now.capabilities.effective));
    fmt::print("bounding: {}\n", to_string(now.capabilities.bounding));
    fmt::print("no_new_privs: {}, system call filter: {}\n", yes(now.no_new_privileges),
               yes(now.seccomp == seccomp_mode::filter));
    fmt::print("{}", said.substr(0, tries));
    co_return result.exit_code();
}

int main() try {
    if (::geteuid() != 0 || landlock_abi() == 0) {
        fmt::print(stderr, "It takes root, and a kernel with Landlock.\n");
        return 77;
    }
    return run(look);
} catch (const error& failure) {
    fmt::print(stderr, "{}\n", failure.what());
    return exit_status_of(failure);
}
