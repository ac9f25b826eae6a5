#include <cstddef>
#include <string>
#include <vector>

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
    line.add(report_of(began), began - 200, began + 9000);
    REQUIRE(line.spans().size() == 4);
    for (const auto& span : line.spans()) CHECK(span.track == timeline_track::child);
    CHECK(std::string(line.spans()[0].name) == "clone");
    CHECK(line.spans()[0].begin == began - 200);
    CHECK(line.spans()[0].end == began);
    CHECK(std::string(line.spans()[1].name) == "root");
    CHECK(line.spans()[1].begin == began);
    CHECK(line.spans()[2].begin == began + 1000);
    CHECK(line.spans()[2].end == began + 3500);
    CHECK(std::string(line.spans()[3].name) == "exec");
    CHECK(line.spans()[3].end == began + 9000);
    CHECK(line.total() == 9500);
}

TEST_CASE(
    "a child that never began leaves nothing, and an end before the last phase no span back") {
    timeline line;
    line.add(child_report{}, timeline::now(), timeline::now());
    CHECK(line.spans().empty());
    const std::int64_t began = line.origin();
    line.add(report_of(began), began, began);
    CHECK(line.spans().back().end == line.spans().back().begin);
}

TEST_CASE("the trace is JSON with a complete event a span, in microseconds") {
    timeline line;
    CHECK(nlohmann::json::parse(line.to_chrome_trace())["traceEvents"].empty());
    const std::int64_t began = line.origin() + 1002003;
    line.add(report_of(began), began - 1, began + 4042);
    const auto trace = nlohmann::json::parse(line.to_chrome_trace());
    REQUIRE(trace["traceEvents"].size() == 4);
    CHECK(trace["traceEvents"][0]["name"] == "clone");
    const auto& first = trace["traceEvents"][1];
    CHECK(first["ph"] == "X");
    CHECK(first["name"] == "root");
    CHECK(first["tid"] == 2);
    CHECK(first["ts"].get<double>() == 1002.003);
    CHECK(first["dur"].get<double>() == 1.0);
    CHECK(trace["traceEvents"][3]["dur"].get<double>() == 0.542);
}

TEST_CASE("the table has a line a span, with a bar in its place") {
    timeline line;
    const std::int64_t began = line.origin() + 5000;
    line.add(report_of(began), began - 4000, began + 5000);
    CHECK(to_string(line, 10) ==
          "  at us   took us  who         what\n"
          "      1         4  child       clone         | ====     |\n"
          "      5         1  child       root          |     =    |\n"
          "      6         2  child       proc          |      ==  |\n"
          "      8         1  child       exec          |        ==|\n");
    CHECK(to_string(timeline(), 10) == "  at us   took us  who         what\n");
}

TEST_CASE("the median of many starts has the medians of their spans, after each one's beginning") {
    std::vector<timeline> starts(3);
    const std::int64_t delays[] = {700, 100, 300};
    const std::int64_t ends[] = {9000, 5000, 4000};
    for (std::size_t i = 0; i < 3; ++i) {
        const std::int64_t began = starts[i].origin() + 1000 + delays[i];
        starts[i].add(report_of(began), began - delays[i], began + ends[i]);
    }
    starts[0].mark("only once");
    const timeline middle = timeline::median(starts);
    CHECK(middle.origin() == 0);
    REQUIRE(middle.spans().size() == 4);
    CHECK(std::string(middle.spans()[0].name) == "clone");
    CHECK(middle.spans()[0].track == timeline_track::child);
    CHECK(middle.spans()[0].begin == 1000);
    CHECK(middle.spans()[0].end == 1300);
    CHECK(middle.spans()[1].begin == 1300);
    CHECK(middle.spans()[1].end == 2300);
    CHECK(std::string(middle.spans()[3].name) == "exec");
    CHECK(middle.spans()[3].begin == 4800);
    CHECK(middle.spans()[3].end == 6300);
    CHECK(middle.total() == 6300);
    CHECK(timeline::median({}).spans().empty());
}

TEST_CASE(
    "what is covered is counted once, and neither outside of the time nor where only a wait is") {
    timeline line;
    const std::int64_t began = line.origin() + 1'000'000'000;  // long after any mark here
    line.add(report_of(began), began - 300, began + 5000);
    CHECK(covered(line, began - 300, began + 5000) == 5300);
    CHECK(covered(line, began - 1000, began + 9000) == 5300);
    CHECK(covered(line, began + 500, began + 2000) == 1500);
    CHECK(covered(line, began + 6000, began + 9000) == 0);
    line.add(report_of(began + 2000), began + 2000,
             began + 6000);  // 4000 of it are counted already
    CHECK(covered(line, began - 300, began + 9000) == 6300);
    timeline waiting;
    waiting.mark(waiting_span.data());
    CHECK(covered(waiting, waiting.origin(), timeline::now()) == 0);
    waiting.mark("take over");
    CHECK(covered(waiting, waiting.origin(), timeline::now()) ==
          waiting.spans()[1].end - waiting.spans()[1].begin);
}
