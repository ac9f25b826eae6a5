#include <kumiki/cgroup/pressure_counts.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace std::chrono_literals;

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

TEST_CASE("pressure of interrupts has one line, and nonsense has none") {
    const auto irq = parse_pressure("full avg10=0.50 avg60=0.10 avg300=0.00 total=77\n");
    CHECK(irq.full == pressure_share{50, 10, 0, 77us});
    CHECK(irq.some == pressure_share{});
    const auto cut = parse_pressure("some avg10=1.00 avg60=2.0");
    CHECK(cut.some.average_10 == 100);
    CHECK(cut.some.total == 0us);
    CHECK(parse_pressure("some total=9223372036854775807\n").some.total.count() == INT64_MAX);
    CHECK(parse_pressure("some total=9223372036854775808\n").some.total == 0us);
    CHECK(parse_pressure("some avg10=99999999999.00 total=-\n").some == pressure_share{});
    CHECK(pressure_key(pressure_resource::irq) == "irq.pressure");
    CHECK(pressure_key(pressure_resource::memory) == "memory.pressure");
}
