#include <sys/mman.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/cgroup/pressure.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::child;

TEST_CASE("a pressure trigger that the kernel would refuse is refused before") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    const auto group = root.create("refused");
    using trigger = pressure_trigger;
    CHECK_THROWS_AS(pressure_watch(group, trigger{.window = 499ms}), invalid_input);
    CHECK_THROWS_AS(pressure_watch(group, trigger{.window = 10001ms}), invalid_input);
    CHECK_THROWS_AS(pressure_watch(group, trigger{.threshold = 0ms}), invalid_input);
    CHECK_THROWS_AS(pressure_watch(group, trigger{.threshold = 2001ms}), invalid_input);
    if (!read_pressure(group, pressure_resource::irq))
        CHECK_THROWS_AS(pressure_watch(group, trigger{.resource = pressure_resource::irq}),
                        unsupported);
}

namespace {

task<std::optional<pressure>> first(stream<pressure>& told) {
    auto one = co_await told.next();
    co_return one;
}

task<void> remove_a_little_later(scheduler& io, cgroup group) {
    co_await io.sleep_for(5ms);
    group.destroy();
}

task<void> tell_of_cpu(scheduler& io, cgroup_root& root) {
    auto group = root.create("pressure");
    auto told = watch_pressure(
        io, group, {.resource = pressure_resource::cpu, .threshold = 20ms, .window = 2s});
    // More busy processes than there are processors: some of them always wait.
    std::vector<std::unique_ptr<child>> busy;
    for (long i = ::sysconf(_SC_NPROCESSORS_ONLN); i >= 0; --i)
        busy.push_back(std::make_unique<child>(group, [](void*) {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;) {}
        }));
    auto seen = co_await with_timeout(io, 20s, first(told));
    REQUIRE(seen);
    REQUIRE(*seen);
    CHECK((*seen)->some.total >= 20ms);
    busy.clear();
    // The stream ends with the group, also when it is being awaited.
    auto end = co_await when_all(with_timeout(io, 20s,
                                              [](stream<pressure>& of) -> task<bool> {
                                                  for (;;) {
                                                      auto one = co_await of.next();
                                                      if (!one) co_return true;
                                                  }
                                              }(told)),
                                 remove_a_little_later(io, std::move(group)));
    CHECK(std::get<0>(end).has_value());
}

}  // namespace

TEST_CASE("a pressure trigger tells when processes wait, and ends with its group [vm]", "[vm]") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    if (!read_pressure(root.group(), pressure_resource::cpu))
        KUMIKI_SKIP("the kernel does not measure pressure");
    const auto backend = GENERATE(io_backend::io_uring, io_backend::epoll);
    CAPTURE(to_string(backend));
    scheduler io(scheduler_options{.backend = backend});
    io.run(tell_of_cpu(io, root));
}

TEST_CASE("a trigger for interrupts is set for all processes, not for some [vm]", "[vm]") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    const auto group = root.create("irq");
    if (!read_pressure(group, pressure_resource::irq))
        KUMIKI_SKIP("the kernel does not measure pressure of interrupts");
    pressure_trigger trigger{.resource = pressure_resource::irq, .full = true};
    const pressure_watch watch(group, trigger);
    CHECK(watch.fd() >= 0);
    trigger.full = false;
    try {
        const pressure_watch refused(group, trigger);
        // A later kernel may have the line.
        CHECK(group.read("irq.pressure").find("some") != std::string::npos);
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EINVAL);
        CHECK(failure.remedy().find("full") != std::string::npos);
    }
}

namespace {

/// Writes to 64 MiB over and over.
void churn(void*) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    constexpr std::size_t size = 64U << 20;
    void* memory =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) ::_exit(2);
    for (;;)
        for (std::size_t i = 0; i < size; i += 4096) static_cast<volatile char*>(memory)[i] = 1;
}

task<void> tell_of_memory(scheduler& io, cgroup_root& root) {
    const auto group = root.create("short", {.memory_high = 8_MiB});
    auto told = watch_pressure(
        io, group, {.resource = pressure_resource::memory, .threshold = 50ms, .window = 1s});
    const child hog(group, churn);
    REQUIRE(hog.pid() > 0);
    const auto begun = std::chrono::steady_clock::now();
    auto seen = co_await with_timeout(io, 30s, first(told));
    REQUIRE(seen);
    REQUIRE(*seen);
    INFO("after " << (std::chrono::steady_clock::now() - begun) / 1ms << " ms");
    CHECK((*seen)->some.total >= 50ms);
    group.kill();
}

}  // namespace

TEST_CASE("a trigger tells that a group is short of memory [vm]", "[vm]") {
    if (const auto why = kumiki_test::missing(controllers::memory); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    if (!read_pressure(root.group(), pressure_resource::memory))
        KUMIKI_SKIP("the kernel does not measure pressure");
    scheduler io;
    io.run(tell_of_memory(io, root));
}
