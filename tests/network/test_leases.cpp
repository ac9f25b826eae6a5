#include <sys/wait.h>

#include <cstdlib>
#include <set>
#include <thread>
#include <vector>

#include <kumiki/network/leases.hpp>

#include "support/catch.hpp"
#include "support/failure.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::errno_of;

namespace {

// A directory of the test's own, without a name once the test has it open.
struct lease_directory {
    unique_fd directory;
    std::string path;

    lease_directory() {
        char name[] = "/tmp/kumiki-test-XXXXXX";
        REQUIRE(::mkdtemp(name) != nullptr);
        path = name;
        directory = sys::open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY);
    }
    ~lease_directory() {
        ::unlinkat(directory.get(), "leases", 0);
        ::rmdir(path.c_str());
    }
    address_pool pool(const cidr& subnet) const { return {subnet, directory.get(), "leases"}; }
};

}  // namespace

TEST_CASE("Addresses are leased from the third on, each once, in both families") {
    const lease_directory place;
    auto pool = place.pool("10.88.0.0/24"_cidr);
    CHECK(pool.gateway() == "10.88.0.1"_ip);
    const auto first = pool.lease();
    const auto second = pool.lease();
    CHECK(first.address() == "10.88.0.2"_ip);
    CHECK(second.address() == "10.88.0.3"_ip);
    CHECK(first.with_prefix() == "10.88.0.2/24"_cidr);
    const lease_directory other;
    auto pool6 = other.pool("fd00:88::/64"_cidr);
    CHECK(pool6.gateway() == "fd00:88::1"_ip);
    CHECK(pool6.lease(first.offset()).address() == "fd00:88::2"_ip);
}

TEST_CASE("A lease given back rests while others are free, and can be asked for") {
    const lease_directory place;
    auto pool = place.pool("10.88.0.0/28"_cidr);
    { const auto gone = pool.lease(); }
    CHECK(pool.lease().address() == "10.88.0.3"_ip);
    CHECK(pool.lease("10.88.0.2"_ip).address() == "10.88.0.2"_ip);
}

TEST_CASE("An exhausted pool is named, and a lease given back ends that") {
    const lease_directory place;
    auto pool = place.pool("10.88.0.0/29"_cidr);
    std::vector<address_lease> all;
    for (int i = 0; i < 5; ++i) all.push_back(pool.lease());
    try {
        (void)pool.lease();
        FAIL("there was a sixth");
    } catch (const error& failure) {
        INFO(failure.what());
        CHECK(failure.errno_value() == EADDRNOTAVAIL);
        CHECK(std::string(failure.what()).find("10.88.0.0/29") != std::string::npos);
    }
    const auto address = all[3].address();
    all.erase(all.begin() + 3);
    CHECK(pool.lease().address() == address);
}

TEST_CASE("A static address is leased, or the conflict is named") {
    const lease_directory place;
    auto pool = place.pool("10.88.0.0/24"_cidr);
    const auto lease = pool.lease("10.88.0.2"_ip);
    CHECK(pool.lease().address() == "10.88.0.3"_ip);
    CHECK(errno_of([&] { (void)pool.lease("10.88.0.2"_ip); }) == EADDRINUSE);
    CHECK(errno_of([&] { (void)place.pool("10.88.0.0/24"_cidr).lease("10.88.0.2"_ip); }) ==
          EADDRINUSE);
    for (const auto& bad :
         {"10.88.0.0"_ip, "10.88.0.1"_ip, "10.88.0.255"_ip, "10.88.1.2"_ip, "fd00::2"_ip})
        CHECK_THROWS_AS(pool.lease(bad), invalid_input);
}

TEST_CASE("Static IPv6 addresses are leased as far as a lock can reach") {
    const lease_directory place;
    auto pool = place.pool("fd00:88::/64"_cidr);
    const auto far = pool.lease("fd00:88::1234:5678:9abc"_ip);
    CHECK(far.address() == "fd00:88::1234:5678:9abc"_ip);
    CHECK(errno_of([&] { (void)pool.lease("fd00:88::1234:5678:9abc"_ip); }) == EADDRINUSE);
    CHECK_THROWS_AS(pool.lease("fd00:88::ffff:0:0:1"_ip), invalid_input);
    CHECK_THROWS_AS(pool.lease("fd00:88::1"_ip), invalid_input);
    CHECK_THROWS_AS(pool.lease("fd00:89::2"_ip), invalid_input);
}

TEST_CASE("A network without room for a container is refused") {
    const lease_directory place;
    CHECK_THROWS_AS(place.pool("10.88.0.0/31"_cidr), invalid_input);
    CHECK_THROWS_AS(place.pool("10.88.0.0/32"_cidr), invalid_input);
    CHECK_THROWS_AS(place.pool("fd00::/127"_cidr), invalid_input);
    CHECK(place.pool("10.88.0.0/30"_cidr).lease().address() == "10.88.0.2"_ip);
}

TEST_CASE("A lease moves with its object") {
    const lease_directory place;
    auto pool = place.pool("10.88.0.0/29"_cidr);
    auto a = pool.lease();
    auto b = pool.lease();
    const auto freed = a.address();
    a = std::move(b);
    CHECK(a.address() == "10.88.0.3"_ip);
    CHECK(pool.lease(freed).address() == freed);
}

TEST_CASE("Leases of a killed process are free again, those of a living one are not") {
    const lease_directory place;
    int ready[2];
    REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        // In the child nothing of the test framework may run, and it ends by being killed.
        try {
            auto pool = place.pool("10.88.0.0/24"_cidr);
            const auto lease = pool.lease("10.88.0.2"_ip);
            (void)!::write(ready[1], "x", 1);
            for (;;) ::pause();
        } catch (...) {
            ::_exit(1);
        }
    }
    REQUIRE(child > 0);
    ::close(ready[1]);
    char byte = 0;
    REQUIRE(::read(ready[0], &byte, 1) == 1);
    auto pool = place.pool("10.88.0.0/24"_cidr);
    CHECK(errno_of([&] { (void)pool.lease("10.88.0.2"_ip); }) == EADDRINUSE);
    CHECK(pool.lease().address() == "10.88.0.3"_ip);
    ::kill(child, SIGKILL);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    CHECK(pool.lease("10.88.0.2"_ip).address() == "10.88.0.2"_ip);
    ::close(ready[0]);
}

TEST_CASE("Threads with one pool and with one each never get the same address") {
    const lease_directory place;
    auto shared = place.pool("10.88.0.0/22"_cidr);
    std::mutex mutex;
    std::vector<address_lease> all;
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t)
        threads.emplace_back([&, t] {
            auto own = place.pool("10.88.0.0/22"_cidr);
            for (int i = 0; i < 100; ++i) {
                auto lease = (t % 2 == 0 ? shared : own).lease();
                const std::lock_guard guard(mutex);
                all.push_back(std::move(lease));
            }
        });
    for (auto& thread : threads) thread.join();
    std::set<ip_address> addresses;
    for (const auto& lease : all) addresses.insert(lease.address());
    CHECK(addresses.size() == 800);
}
