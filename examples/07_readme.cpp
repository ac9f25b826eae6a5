// What README.md shows: a web server in a container, reached from outside by port 8080. The code below is
// that of the README letter for letter (tests/checks/readme).

#include <fmt/format.h>

#include <kumiki/kumiki.hpp>

using namespace kumiki;
using namespace kumiki::literals;

task<int> serve(scheduler& io) {
    auto net = bridge_network::open({.name = "web", .subnet = "10.88.0.0/24"_cidr});
    container_spec spec{
        .rootfs = rootfs::overlay("/srv/images/busybox"),  // changes go to a tmpfs
        .process = {.args = {"httpd", "-f", "-p", "80"}},
        .limits = {.memory = 64_MiB, .cpu = cpus(0.5), .pids = 32},
        .network = net.attach({.publish = {tcp(8080, 80)},
                               .ingress = deny_all().allow("192.0.2.0/24"_cidr),
                               .egress = deny_all().allow("10.0.0.53"_ip, udp(53))}),
    };
    auto box = co_await container::start(io, std::move(spec));  // all of it, or nothing is left
    fmt::print("{}", to_string(box.start_timeline()));
    auto result = co_await box.wait();
    fmt::print("status {}, OOM kills: {}\n", result.exit_code(), result.oom_kills);
    co_return result.exit_code();
}

int main() { return run(serve); }
