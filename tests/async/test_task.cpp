#include <memory>
#include <stdexcept>
#include <string>

#include <kumiki/async/task.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using kumiki_test::counted;

namespace {

task<int> number(int value) { co_return value; }
task<std::unique_ptr<int>> pointer() { co_return std::make_unique<int>(7); }
task<int&> same(int& value) { co_return value; }
task<void> fails() {
    throw std::runtime_error("as asked");
    co_return;
}
task<int> deep(int levels) {
    if (levels == 0) co_return 0;
    const int below = co_await deep(levels - 1);
    co_return below + 1;
}
task<long> many(int count) {
    long sum = 0;
    for (int i = 0; i < count; ++i) {
        const int value = co_await number(1);
        sum += value;
    }
    co_return sum;
}
task<void> notes(std::string& log, counted) {
    log += "ran ";
    co_return;
}

}  // namespace

TEST_CASE("a task yields a value, a move-only value, a reference, nothing", "[task]") {
    scheduler io;
    CHECK(io.run(number(5)) == 5);
    CHECK(*io.run(pointer()) == 7);
    int here = 1;
    CHECK(&io.run(same(here)) == &here);
    std::string log;
    io.run(notes(log, {}));
    CHECK(log == "ran ");
    CHECK(counted::alive == 0);
}

TEST_CASE("an exception comes out where the task is awaited", "[task]") {
    scheduler io;
    CHECK_THROWS_AS(io.run(fails()), std::runtime_error);
    const auto outer = []() -> task<std::string> {
        try {
            co_await fails();
        } catch (const std::runtime_error& caught) {
            co_return caught.what();
        }
        co_return "nothing";
    };
    CHECK(io.run(outer()) == "as asked");
}

TEST_CASE("a task is lazy, and one that is never awaited releases its parameters", "[task]") {
    std::string log;
    {
        const task<void> idle = notes(log, {});
        CHECK(counted::alive == 1);
        CHECK(static_cast<bool>(idle));
    }
    CHECK(log.empty());
    CHECK(counted::alive == 0);
}

TEST_CASE("a moved task leaves an empty one", "[task]") {
    scheduler io;
    task<int> first = number(3);
    task<int> second = std::move(first);
    CHECK(!static_cast<bool>(first));
    first = std::move(second);
    CHECK(io.run(std::move(first)) == 3);
}

TEST_CASE("100,000 tasks that are ready at once do not use up the stack", "[task]") {
    scheduler io;
    CHECK(io.run(many(100'000)) == 100'000);
}

TEST_CASE("100,000 tasks inside one another do not use up the stack", "[task]") {
    scheduler io;
    CHECK(io.run(deep(100'000)) == 100'000);
}

TEST_CASE("cancelled is no kumiki::error", "[task]") {
    CHECK(!std::is_base_of_v<error, cancelled>);
    CHECK(!std::is_base_of_v<std::runtime_error, cancelled>);
    CHECK(std::is_base_of_v<std::exception, cancelled>);
}
