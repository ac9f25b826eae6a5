#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <set>
#include <string>
#include <vector>

#include <kumiki/container/encode_attributes.hpp>
#include <kumiki/container/process_attributes.hpp>
#include <kumiki/security/process_status.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using namespace std::chrono_literals;
using kumiki_test::busybox;
using kumiki_test::busybox_root;
using kumiki_test::failure_of;
using kumiki_test::holdings;
using kumiki_test::run_shell;
using kumiki_test::shell;

namespace {

/// Starts `sleep` with what `change` describes and gives the process's number to `look`.
template <class Change>
void with_process(Change&& change, std::function<void(pid_t)> look) {
    scheduler io;
    auto spec = shell("sleep 30");
    change(spec.process);
    kumiki_test::with_container(io, std::move(spec), [&](container& box) { look(box.pid()); });
}

}  // namespace

TEST_CASE(
    "nice value, scheduling policy and I/O priority are what the kernel tells of the process") {
    with_process([](process_spec& p) { p.nice = 7; },
                 [](pid_t pid) {
                     CHECK(::getpriority(PRIO_PROCESS, static_cast<id_t>(pid)) == 7);
                     CHECK(::sched_getscheduler(pid) == SCHED_OTHER);
                 });
    with_process(
        [](process_spec& p) {
            p.scheduling = scheduling{.policy = scheduling_policy::batch};
            p.nice = 3;
            p.io_priority = io_priority{.which = io_class::best_effort, .level = 6};
        },
        [](pid_t pid) {
            CHECK(::sched_getscheduler(pid) == SCHED_BATCH);
            CHECK(::getpriority(PRIO_PROCESS, static_cast<id_t>(pid)) == 3);
            CHECK(::syscall(SYS_ioprio_get, 1, pid) == (2 << 13 | 6));
        });
    with_process(
        [](process_spec& p) {
            p.scheduling = scheduling{.policy = scheduling_policy::idle};
            p.io_priority = io_priority{.which = io_class::idle, .level = 0};
        },
        [](pid_t pid) {
            CHECK(::sched_getscheduler(pid) == SCHED_IDLE);
            CHECK(::syscall(SYS_ioprio_get, 1, pid) >> 13 == 3);
        });
}

TEST_CASE("a real-time policy has its priority, and what it starts has the usual one") {
    try {
        with_process(
            [](process_spec& p) {
                p.scheduling = scheduling{
                    .policy = scheduling_policy::round_robin, .priority = 3, .reset_on_fork = true};
            },
            [](pid_t pid) {
                CHECK(::sched_getscheduler(pid) == (SCHED_RR | SCHED_RESET_ON_FORK));
                sched_param parameter{};
                CHECK(::sched_getparam(pid, &parameter) == 0);
                CHECK(parameter.sched_priority == 3);
            });
    } catch (const error& failure) {
        CHECK(failure.object() == "the scheduling policy");
        KUMIKI_SKIP("no real-time processes here: " + std::string(failure.what()));
    }
}

TEST_CASE("a process runs on the processors that are named and on no others") {
    cpu_set_t own;
    REQUIRE(::sched_getaffinity(0, sizeof own, &own) == 0);
    unsigned last = 0;
    for (unsigned i = 0; i < CPU_SETSIZE; ++i)
        if (CPU_ISSET(i, &own)) last = i;
    with_process([&](process_spec& p) { p.processors = {last}; },
                 [&](pid_t pid) {
                     cpu_set_t set;
                     REQUIRE(::sched_getaffinity(pid, sizeof set, &set) == 0);
                     CHECK(CPU_COUNT(&set) == 1);
                     CHECK(CPU_ISSET(last, &set));
                 });
    const auto missing = failure_of(
        [] { with_process([](process_spec& p) { p.processors = {8191}; }, [](pid_t) {}); });
    CHECK(missing.errno_value() == EINVAL);
    CHECK(missing.object() == "the processors");
}

TEST_CASE("a personality is the process's own") {
    auto spec = shell("cat /proc/self/personality");
    spec.process.personality =
        personality_bits::no_address_randomization | personality_bits::linux32;
    const auto seen = run_shell(std::move(spec)).output;
    // The file is the kernel's only with CAP_SYS_PTRACE-like rights over the reader itself.
    if (seen.find("ermission") != std::string::npos)
        KUMIKI_SKIP("/proc/self/personality cannot be read");
    CHECK(seen == "00040008\n");
}

TEST_CASE("a container has a session keyring of its own unless it is to have the supervisor's") {
    if (!detail::has_keyrings()) KUMIKI_SKIP("no keyrings here");
    // The container has no keyctl(2) of its own to ask with: the kernel's list of keys shows it.
    const auto sessions = [] {
        std::set<std::string> found;
        for (const auto& line : holdings::lines("/proc/keys"))
            if (line.find("keyring   _ses") != std::string::npos)
                found.insert(line.substr(0, line.find(' ')));
        return found;
    };
    const auto before = sessions();
    with_process([](process_spec&) {},
                 [&](pid_t) {
                     std::size_t fresh = 0;
                     for (const auto& each : sessions()) fresh += before.count(each) == 0;
                     CHECK(fresh >= 1);
                 });
    process_spec shared{.args = {"true"}, .session_keyring = false};
    plan steps;
    detail::encode_keyring(steps, shared);
    CHECK(steps.size() == 0);
    shared.session_keyring = true;
    detail::encode_keyring(steps, shared);
    CHECK(steps.size() == 1);
}

TEST_CASE("a keyring in a user namespace does not count against the quota of its users") {
    if (!detail::has_keyrings()) KUMIKI_SKIP("no keyrings here");
    // The kernel's quota of a user who is not root is 200 keyrings: it is root's that count.
    scheduler io;
    auto spec = shell("sleep 30");
    spec.user_namespace = kumiki_test::mapped_ids();
    kumiki_test::with_container(io, spec, [](container&) {
        for (const auto& line : holdings::lines("/proc/key-users"))
            CHECK(line.find(" 100000:") == std::string::npos);
    });
}

TEST_CASE("kernel parameters are those of the container's namespaces, and the host's stay") {
    const auto host_port = holdings::lines("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    const auto host_messages = holdings::lines("/proc/sys/kernel/msgmax");
    auto spec = shell(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax "
        "/proc/sys/fs/mqueue/msg_max /proc/sys/kernel/domainname "
        "/proc/sys/net/ipv4/conf/lo/forwarding");
    spec.sysctls = {{"net.ipv4.ip_unprivileged_port_start", "7"},
                    {"kernel.msgmax", "4096"},
                    {"fs.mqueue.msg_max", "9"},
                    {"kernel/domainname", "inside"},
                    {"net/ipv4/conf/lo/forwarding", "1"}};
    spec.clone = GENERATE(clone_mode::shared_memory, clone_mode::own_memory);
    CHECK(run_shell(std::move(spec)).output == "7\n4096\n9\ninside\n1\n");
    CHECK(holdings::lines("/proc/sys/net/ipv4/ip_unprivileged_port_start") == host_port);
    CHECK(holdings::lines("/proc/sys/kernel/msgmax") == host_messages);
}

TEST_CASE("a parameter of the whole host, or of a namespace that is shared, is refused") {
    const auto refusal = [](std::string name, std::string value, auto change) {
        auto spec = shell("true");
        spec.sysctls = {{std::move(name), std::move(value)}};
        change(spec);
        return std::string(failure_of([&] { spec.validate(); }).what());
    };
    const auto unchanged = [](container_spec&) {};
    for (const char* name : {"kernel.core_pattern", "kernel.sysrq", "vm.swappiness", "fs.file-max",
                             "kernel.msgmaxx", "fs.mqueue", "user.max_pid_namespaces"}) {
        CAPTURE(name);
        CHECK(refusal(name, "1", unchanged).find(name) != std::string::npos);
    }
    for (const char* name : {"", "net", ".", "net.", "net..ipv4", "net/../kernel/sysrq",
                             "net/./ipv4", "/net/ipv4", "net.ipv4.conf/../x"}) {
        CAPTURE(name);
        CHECK(refusal(name, "1", unchanged).find("sysctl") != std::string::npos);
    }
    CHECK(refusal("net.ipv4.ip_forward", "", unchanged).find("empty") != std::string::npos);
    CHECK(refusal("net.ipv4.ip_forward", std::string("1\0", 2), unchanged).find("NUL") !=
          std::string::npos);
    CHECK(refusal("kernel.hostname", "x", unchanged).find("hostname") != std::string::npos);
    CHECK(refusal("net.ipv4.ip_forward", "1", [](container_spec& s) {
              s.network = network_mode::host;
          }).find("no net namespace") != std::string::npos);
    CHECK(refusal("kernel.msgmax", "1", [](container_spec& s) {
              s.namespaces = namespace_kind::mount;
          }).find("no ipc namespace") != std::string::npos);
    CHECK(detail::sysctl_path({"net.ipv4.conf.eth0/1.forwarding", ""}) ==
          "net/ipv4/conf/eth0.1/forwarding");
    CHECK(detail::sysctl_path({"net/ipv4/conf/eth0.1/forwarding", ""}) ==
          "net/ipv4/conf/eth0.1/forwarding");
}

TEST_CASE("a parameter that the kernel does not have, or a value that it refuses, is one error") {
    auto spec = shell("true");
    spec.sysctls = {{"net.ipv4.no_such_thing", "1"}};
    const auto missing = failure_of([&] { run_shell(spec); });
    CHECK(missing.errno_value() == ENOENT);
    CHECK(missing.object() == "net/ipv4/no_such_thing");
    CHECK(missing.step() == "sysctl");
    spec.sysctls = {{"net.ipv4.ip_forward", "many"}};
    CHECK(failure_of([&] { run_shell(spec); }).errno_value() == EINVAL);
}

TEST_CASE("attributes out of their ranges are refused") {
    const auto refused = [](auto change) {
        process_spec spec{.args = {"true"}};
        change(spec);
        return failure_of([&] { spec.validate(); }).operation().size() != 0 ||
               !failure_of([&] { spec.validate(); }).object().empty();
    };
    using policy = scheduling_policy;
    CHECK_FALSE(refused([](process_spec& p) { p.nice = -20; }));
    CHECK(refused([](process_spec& p) { p.nice = -21; }));
    CHECK(refused([](process_spec& p) { p.nice = 20; }));
    CHECK(refused([](process_spec& p) { p.processors = {8192}; }));
    CHECK(refused([](process_spec& p) { p.io_priority = io_priority{.level = 8}; }));
    CHECK(refused([](process_spec& p) { p.scheduling = scheduling{.priority = 1}; }));
    CHECK(refused([](process_spec& p) { p.scheduling = scheduling{.policy = policy::fifo}; }));
    CHECK(refused([](process_spec& p) {
        p.scheduling = scheduling{.policy = policy::fifo, .priority = 100};
    }));
    CHECK(refused([](process_spec& p) { p.scheduling = scheduling{.runtime = 1ms}; }));
    CHECK(refused([](process_spec& p) {
        p.scheduling = scheduling{.policy = policy::deadline, .runtime = 2ms, .deadline = 1ms};
    }));
    CHECK_FALSE(refused([](process_spec& p) {
        p.scheduling = scheduling{.policy = policy::deadline, .runtime = 1ms, .deadline = 2ms};
    }));
}

TEST_CASE("an affinity mask has its bits where the kernel looks for them") {
    CHECK(detail::make_affinity_mask({}).empty());
    CHECK(detail::make_affinity_mask({0, 3}) == std::vector<unsigned long>{9});
    const auto wide = detail::make_affinity_mask({8 * sizeof(unsigned long) + 1, 0});
    CHECK(wide == std::vector<unsigned long>{1, 2});
}
