#include <string>

#include <nlohmann/json.hpp>

#include <kumiki/container/timeline.hpp>

#include "support/catch.hpp"

using namespace kumiki;

namespace {

child_report report_of(std::int64_t began) {
    child_report report;
    report.began = began;
    report.phase_end[static_cast<std::size_t>(phase::root)] = began + 1000;
    report.phase_end[static_cast<std::size_t>(phase::proc)] = began + 3500;
    return report;
}

}  // namespace

TEST_CASE("the supervisor's spans follow each other from the beginning on") {
    timeline line;
    CHECK(line.total() == 0);
    line.mark("one");
    line.mark("two");
    REQUIRE(line.spans().size() == 2);
    CHECK(line.spans()[0].begin == line.origin());
    CHECK(line.spans()[0].end == line.spans()[1].begin);
    CHECK(line.total() == line.spans()[1].end - line.origin());
    CHECK(std::string(line.spans()[1].name) == "two");
}

TEST_CASE("the child's spans are the phases that it came to, and its execve ends the last") {
    timeline line;
    const std::int64_t began = line.origin() + 500;
    line.add(report_of(began), began + 9000);
    REQUIRE(line.spans().size() == 3);
    for (const auto& span : line.spans()) CHECK(span.track == timeline_track::child);
    CHECK(std::string(line.spans()[0].name) == "root");
    CHECK(line.spans()[0].begin == began);
    CHECK(line.spans()[1].begin == began + 1000);
    CHECK(line.spans()[1].end == began + 3500);
    CHECK(std::string(line.spans()[2].name) == "exec");
    CHECK(line.spans()[2].end == began + 9000);
    CHECK(line.total() == 9500);
}

TEST_CASE(
    "a child that never began leaves nothing, and an end before the last phase no span back") {
    timeline line;
    line.add(child_report{}, timeline::now());
    CHECK(line.spans().empty());
    const std::int64_t began = line.origin();
    line.add(report_of(began), began);
    CHECK(line.spans().back().end == line.spans().back().begin);
}

TEST_CASE("the trace is JSON with a complete event a span, in microseconds") {
    timeline line;
    CHECK(nlohmann::json::parse(line.to_chrome_trace())["traceEvents"].empty());
    const std::int64_t began = line.origin() + 1002003;
    line.add(report_of(began), began + 4042);
    const auto trace = nlohmann::json::parse(line.to_chrome_trace());
    REQUIRE(trace["traceEvents"].size() == 3);
    const auto& first = trace["traceEvents"][0];
    CHECK(first["ph"] == "X");
    CHECK(first["name"] == "root");
    CHECK(first["tid"] == 2);
    CHECK(first["ts"].get<double>() == 1002.003);
    CHECK(first["dur"].get<double>() == 1.0);
    CHECK(trace["traceEvents"][2]["dur"].get<double>() == 0.542);
}

TEST_CASE("the table has a line a span, with a bar in its place") {
    timeline line;
    const std::int64_t began = line.origin() + 5000;
    line.add(report_of(began), began + 5000);
    CHECK(to_string(line, 10) ==
          "  at us   took us  who         what\n"
          "      5         1  child       root          |     =    |\n"
          "      6         2  child       proc          |      ==  |\n"
          "      8         1  child       exec          |        ==|\n");
    CHECK(to_string(timeline(), 10) == "  at us   took us  who         what\n");
}
