#include <set>

#include <kumiki/ns/id_pool.hpp>

#include "ns/support.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

using namespace kumiki_test;

TEST_CASE("ranges of a pool never overlap, and one that was given back rests") {
    const scratch directory;
    id_pool pool({100000, 4 * 65536}, 65536, directory.directory(), "ids");
    CHECK(pool.ranges() == 4);
    std::set<std::uint32_t> first;
    {
        const auto a = pool.lease();
        const auto b = pool.lease();
        first = {a.ids().first, b.ids().first};
        CHECK(first == std::set<std::uint32_t>{100000, 165536});
        CHECK(a.map().to_outside(0) == 100000U);
        CHECK(a.map().to_outside(65535) == 165535U);
        CHECK_FALSE(a.map().to_outside(65536));
    }
    CHECK(pool.lease().ids().first == 231072U);
}

TEST_CASE("two pools of one file, as in two processes, share their ranges") {
    const scratch directory;
    id_pool one({100000, 30}, 10, directory.directory(), "ids");
    id_pool two({100000, 30}, 10, directory.directory(), "ids");
    std::vector<id_lease> held;
    held.push_back(one.lease());
    held.push_back(two.lease());
    held.push_back(one.lease());
    CHECK(std::set<std::uint32_t>{held[0].ids().first, held[1].ids().first, held[2].ids().first} ==
          std::set<std::uint32_t>{100000, 100010, 100020});
    try {
        two.lease();
        FAIL("a range was leased twice");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EUSERS);
        CHECK(failure.remedy().find("All of its 3 ranges") != std::string::npos);
    }
    held.erase(held.begin());
    CHECK(two.lease().ids().first == 100000U);
}

TEST_CASE("a range is free again when its process is killed") {
    const scratch directory;
    const paused_child holder(namespace_kind::none, [&] {
        static id_pool pool({5000, 10}, 10, directory.directory(), "ids");
        static id_lease held = pool.lease();
    });
    REQUIRE(holder.failure() == "");
    id_pool pool({5000, 10}, 10, directory.directory(), "ids");
    CHECK_THROWS_AS(pool.lease(), error);
    ::kill(holder.pid(), SIGKILL);
    siginfo_t info{};
    REQUIRE(::waitid(P_PID, static_cast<id_t>(holder.pid()), &info, WEXITED | WNOWAIT) == 0);
    CHECK(pool.lease().ids().first == 5000U);
}

TEST_CASE("a span that has no range is refused") {
    const scratch directory;
    const auto make = [&](id_span ids, std::uint32_t size) {
        id_pool(ids, size, directory.directory(), "ids");
    };
    CHECK_THROWS_AS(make({1, 0}, 1), invalid_input);
    CHECK_THROWS_AS(make({1, 10}, 0), invalid_input);
    CHECK_THROWS_AS(make({1, 10}, 11), invalid_input);
    CHECK_THROWS_AS(make({4294967000U, 1000}, 10), invalid_input);
    CHECK_NOTHROW(make({1, 10}, 10));
}
