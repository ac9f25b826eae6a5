#include <poll.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <thread>

#include <kumiki/cgroup/watch.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::child;

namespace {

bool readable(int fd, int patience_ms) {
    pollfd wait{.fd = fd, .events = POLLIN, .revents = 0};
    return ::poll(&wait, 1, patience_ms) == 1;
}

}  // namespace

TEST_CASE("a watched group is readable when something has happened, until it is read") {
    if (const auto why = kumiki_test::missing(); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    const bool owned = GENERATE(true, false);
    CAPTURE(owned);
    auto group = cgroup::create(root.group(), "watch");
    const auto other = cgroup::open(group.path());
    const cgroup_watch watch(owned ? group : other);
    REQUIRE(watch.events());
    CHECK_FALSE(readable(watch.fd(), 20));
    {
        const child inside(group);
        REQUIRE(inside.pid() > 0);
        CHECK(readable(watch.fd(), 5000));
        CHECK(flat_value(*watch.events(), "populated") == 1U);
        CHECK_FALSE(readable(watch.fd(), 20));
    }
    CHECK(readable(watch.fd(), 5000));
    CHECK(flat_value(*watch.events(), "populated") == 0U);
    CHECK_FALSE(readable(watch.fd(), 20));

    // A neighbour's end is no event of this group.
    { const auto neighbour = cgroup::create(root.group(), "neighbour"); }
    REQUIRE(watch.events());
    CHECK_FALSE(readable(watch.fd(), 20));

    // Asleep when the group is removed, and woken by it.
    std::thread remover([&] {
        ::poll(nullptr, 0, 50);
        group = cgroup();
    });
    CHECK(readable(watch.fd(), 5000));
    remover.join();
    CHECK_FALSE(watch.events());
    CHECK_THROWS_AS(cgroup_watch(other), error);
}
