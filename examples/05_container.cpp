// A container, start to end: a command in namespaces, a control group and a root filesystem of its
// own, and what the kernel counted for it. As root:
//
//   example_05_container ROOTFS COMMAND [ARGUMENT...]
//
//   $ example_05_container /srv/images/busybox sh -c 'hostname; echo $$'
//   hello
//   1
//   exit status 0, 3512 us of processor time

#include <fmt/format.h>

#include <kumiki/kumiki.hpp>

using namespace kumiki;

task<int> run_container(scheduler& io, std::string root, std::vector<std::string> command) {
    container_spec spec{
        .rootfs = rootfs::overlay(std::move(root)),  // changes go to a tmpfs, and away with it
        .process = {.args = std::move(command)},
        .hostname = "hello",
    };
    auto box = co_await container::start(io, std::move(spec));  // all of it, or nothing is left
    auto result = co_await box.wait();

    const auto used = result.usage.cpu_usage.value_or(std::chrono::microseconds(0));
    fmt::print("exit status {}, {} us of processor time\n", result.exit_code(), used.count());
    co_return result.exit_code();
}

int main(int argc, char** argv) {
    if (argc < 3) {
        fmt::print(stderr, "usage: {} ROOTFS COMMAND [ARGUMENT...]\n", argv[0]);
        return 125;
    }
    try {
        scheduler io;
        return io.run(run_container(io, argv[1], {argv + 2, argv + argc}));
    } catch (const error& failure) {
        fmt::print(stderr, "{}\n", failure.what());
        return exit_status_of(failure);
    }
}
