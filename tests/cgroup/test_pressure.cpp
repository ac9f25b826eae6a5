#include <optional>
#include <vector>

#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/cgroup/pressure.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using namespace std::chrono_literals;
using kumiki_test::child;

TEST_CASE("pressure is read in hundredths of a percent and microseconds") {
    const auto seen = parse_pressure(
        "some avg10=12.34 avg60=0.05 avg300=100.00 total=123456\n"
        "full avg10=1.00 avg60=0.00 avg300=0.00 total=7\n");
    CHECK(seen.some == pressure_share{1234, 5, 10000, 123456us});
    CHECK(seen.full == pressure_share{100, 0, 0, 7us});
    CHECK(parse_pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n").full ==
          pressure_share{});
    CHECK(parse_pressure("") == pressure{});
    CHECK(parse_pressure("none avg10=1.00\nsome avg10=x total=\n") == pressure{});
}

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

task<void> remove_soon(scheduler& io, cgroup group) {
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
                                 remove_soon(io, std::move(group)));
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
