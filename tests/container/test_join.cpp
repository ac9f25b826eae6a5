#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "container/support.hpp"
#include "support/catch.hpp"

using namespace kumiki_test;

namespace {

constexpr namespace_kind pod =
    namespace_kind::uts | namespace_kind::ipc | namespace_kind::net | namespace_kind::pid;

std::string link_of(pid_t pid, std::string_view name) {
    char text[64] = {};
    const std::string path = "/proc/" + std::to_string(pid) + "/ns/" + std::string(name);
    return ::readlink(path.c_str(), text, sizeof text - 1) > 0 ? text : "";
}

task<void> start_pod(scheduler& io, container_spec first, container_spec second,
                     namespace_kind kinds, std::function<void(container&, container&)> use) {
    auto one = co_await container::start(io, std::move(first));
    second.join = one.share(kinds);
    auto two = co_await container::start(io, std::move(second));
    use(one, two);
}

}  // namespace

TEST_CASE("two containers share each kind of namespace that is joined, and no other") {
    if (::geteuid() != 0) KUMIKI_SKIP("containers take root");
    const busybox_root root;
    scheduler io;
    with_container(io, shell_spec(root, "sleep 1000"), [](container&) {});
    const auto before = holdings::now();  // with what the process opens once
    for (const auto kinds : {namespace_kind::uts, namespace_kind::ipc, namespace_kind::net,
                             namespace_kind::pid, pod}) {
        CAPTURE(to_string(kinds));
        io.run(start_pod(io, shell_spec(root, "sleep 1000"), shell_spec(root, "sleep 1000"), kinds,
                         [&](container& one, container& two) {
                             for (const auto& info : namespace_kinds) {
                                 CAPTURE(info.name);
                                 const bool host = info.kind == namespace_kind::user ||
                                                   info.kind == namespace_kind::time;
                                 const auto a = link_of(one.pid(), info.proc_name);
                                 const auto b = link_of(two.pid(), info.proc_name);
                                 CHECK((a == b) == (host || has(kinds, info.kind)));
                                 if (!host) CHECK(a != link_of(::getpid(), info.proc_name));
                             }
                         }));
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

namespace {

task<std::string> read_in_pod(scheduler& io, container_spec first, container_spec second,
                              namespace_kind kinds) {
    auto one = co_await container::start(io, std::move(first));
    second.join = one.share(kinds);
    auto seen = co_await start_and_read(io, std::move(second));
    co_return seen.output;
}

}  // namespace

TEST_CASE("a container in a pod sees the other's name, processes and open port") {
    if (::geteuid() != 0) KUMIKI_SKIP("containers take root");
    const busybox_root root;
    scheduler io;
    auto first = shell_spec(root, "echo hello > /tmp/x; httpd -f -p 127.0.0.1:8080 -h /tmp");
    first.hostname = "the-pod";
    const auto output = io.run(
        read_in_pod(io, std::move(first),
                    shell_spec(root,
                               "hostname; ps | grep -c '[h]ttpd'; i=0; while ! wget -q "
                               "-O - http://127.0.0.1:8080/x; do i=$((i+1)); [ $i -lt "
                               "50 ] || break; sleep 0.1; done; [ $$ != 1 ] && echo no-init"),
                    pod));
    CHECK(output == "the-pod\n1\nhello\nno-init\n");
}

TEST_CASE(
    "the namespaces of a pod outlive the container that they come from, but for its pid one") {
    if (::geteuid() != 0) KUMIKI_SKIP("containers take root");
    const busybox_root root;
    run_shell(shell_spec(root, "true"));
    const auto before = holdings::now();  // with what the process opens once
    {
        scheduler io;
        std::vector<std::shared_ptr<const namespace_fd>> kept;
        auto first = shell_spec(root, "sleep 1000");
        first.hostname = "gone";
        with_container(io, std::move(first), [&](container& box) { kept = box.share(pod); });
        auto next = shell_spec(root, "hostname");
        for (const auto& each : kept)
            if (each->kind() != namespace_kind::pid) next.join.push_back(each);
        CHECK(run_shell(std::move(next)).output == "gone\n");
        auto late = shell_spec(root, "true");
        late.join = kept;
        try {
            run_shell(std::move(late));
            FAIL("a process was born in a dead pid namespace");
        } catch (const start_error& failure) {
            CHECK(failure.errno_value() == ENOMEM);
            CHECK(failure.remedy().find("first process of the pid namespace") != std::string::npos);
        }
        // The spawner's threads have come back from where they were.
        CHECK(run_shell(shell_spec(root, "echo $$")).output == "1\n");
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("what cannot be joined is refused before anything is done") {
    if (::geteuid() != 0) KUMIKI_SKIP("new namespaces take root");
    const busybox_root root;
    const auto handle = [](namespace_kind kind) {
        return std::make_shared<const namespace_fd>(make_namespace(kind));
    };
    auto spec = shell_spec(root, "true");
    SECTION("a kind that containers do not share") { spec.join = {handle(namespace_kind::mount)}; }
    SECTION("two of one kind") {
        spec.join = {handle(namespace_kind::uts), handle(namespace_kind::uts)};
    }
    SECTION("an empty handle") { spec.join = {nullptr}; }
    SECTION("a handle that holds nothing") { spec.join = {std::make_shared<const namespace_fd>()}; }
    SECTION("beside a user namespace of its own") {
        spec.join = {handle(namespace_kind::uts)};
        spec.user_namespace = user_mapping{{{0, 100000, 65536}}, {{0, 100000, 65536}}};
    }
    SECTION("a network beside the host's") {
        spec.join = {handle(namespace_kind::net)};
        spec.network = network_mode::host;
    }
    SECTION("a host name in somebody else's namespace") {
        spec.join = {handle(namespace_kind::uts)};
        spec.hostname = "mine";
    }
    CHECK_THROWS_AS(spec.validate(), invalid_input);
}
