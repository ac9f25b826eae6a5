#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include <kumiki/async/timer_queue.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using namespace std::chrono_literals;

namespace {

struct noting_timer final : detail::timer {
    std::vector<int>* log = nullptr;
    int id = 0;
    void on_time() noexcept override { log->push_back(id); }
};

}  // namespace

TEST_CASE("timers fire in the order of their times, and erased ones do not", "[timer_queue]") {
    std::mt19937 random(20240611);
    detail::timer_queue queue;
    std::vector<int> log;
    std::vector<std::unique_ptr<noting_timer>> timers;
    std::vector<int> expected;
    const auto past = detail::clock::now() - 1h;
    for (int id = 0; id < 500; ++id) {
        timers.push_back(std::make_unique<noting_timer>());
        timers.back()->log = &log;
        timers.back()->id = static_cast<int>(random() % 100'000);
        queue.insert(*timers.back(), past + timers.back()->id * 1ms);
    }
    for (const auto& timer : timers) {
        if (random() % 2 == 0)
            queue.erase(*timer);
        else
            expected.push_back(timer->id);
    }
    queue.erase(*timers.front());  // twice does no harm, once more or not
    if (!expected.empty() &&
        std::find(expected.begin(), expected.end(), timers.front()->id) != expected.end())
        expected.erase(std::find(expected.begin(), expected.end(), timers.front()->id));
    std::sort(expected.begin(), expected.end());
    queue.run();
    CHECK(log == expected);
    CHECK(!queue.until_first().has_value());
}

TEST_CASE("a timer of the future does not fire", "[timer_queue]") {
    std::vector<int> log;
    noting_timer later;
    later.log = &log;
    detail::timer_queue queue;  // goes before its timer
    queue.insert(later, detail::clock::now() + 1h);
    queue.run();
    CHECK(log.empty());
    CHECK(queue.until_first().value() > 59min);
    CHECK(queue.until_first().value() <= 1h);
}

TEST_CASE("a deadline does not overflow", "[timer_queue]") {
    const auto now = detail::clock::now();
    CHECK(detail::deadline_after(now, 5s) == now + 5s);
    CHECK(detail::deadline_after(now, std::chrono::nanoseconds::max()) ==
          detail::clock::time_point::max());
    CHECK(detail::deadline_after(now, -5s) == now - 5s);
}
