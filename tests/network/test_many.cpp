// Endpoints by the hundreds: made by eight threads at once, all there together, and removed by eight threads
// at once. KUMIKI_ENDPOINTS says how many; 500 are asked for before a release.
#include <fcntl.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/network/endpoint.hpp>

#include "support/catch.hpp"
#include "support/leaks.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;
using steady = std::chrono::steady_clock;

namespace {

constexpr std::size_t threads = 8;

std::size_t endpoints_wanted() {
    const char* given = std::getenv("KUMIKI_ENDPOINTS");
    return given != nullptr ? std::strtoul(given, nullptr, 10) : 96;
}

/// Each endpoint has a namespace and two ports held.
bool may_open(std::size_t descriptors) {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < descriptors && limit.rlim_max >= descriptors) {
        limit.rlim_cur = descriptors;
        ::setrlimit(RLIMIT_NOFILE, &limit);
    }
    return limit.rlim_cur >= descriptors;
}

/// What nft(8) says that the namespace has, without what was counted.
std::string ruleset_of(const private_netns& ns) {
    return ns.run([] {
        std::string text;
        FILE* pipe = ::popen("nft -s -nn list ruleset 2>&1", "r");
        char part[4096];
        while (const std::size_t size = std::fread(part, 1, sizeof part, pipe))
            text.append(part, size);
        return ::pclose(pipe) == 0 ? text : "nft failed: " + text;
    });
}

/// How many other namespaces the host's has links into: an id goes when its namespace has gone.
std::size_t count_known_namespaces(netlink_socket& socket) {
    netlink_batch request;
    request.add(RTM_GETNSID, NLM_F_DUMP, rtgenmsg{AF_UNSPEC}, {"list namespace ids", {}});
    return socket.dump(request, [](const netlink_message&) { return std::optional<int>(0); })
        .size();
}

/// The leases that somebody holds: locks of bytes of the pool's file.
std::size_t count_leases(const std::string& file) {
    const auto pool = sys::open_at(AT_FDCWD, file, O_RDWR);
    std::size_t held = 0;
    for (off_t at = 0;; ++held) {
        struct flock found{};
        found.l_type = F_WRLCK;
        found.l_whence = SEEK_SET;
        found.l_start = at;
        REQUIRE(::fcntl(pool.get(), F_OFD_GETLK, &found) == 0);
        if (found.l_type == F_UNLCK) return held;
        // Neighbours are told as one, or one at a time: the first that is met.
        held += static_cast<std::size_t>(found.l_len) - 1;
        at = found.l_start + found.l_len;
    }
}

/// Runs `one(i)` for each i below `count`, on eight threads; the longest time that one took.
template <class Function>
std::chrono::milliseconds by_threads(std::size_t count, std::string& failure, Function&& one) {
    std::atomic<std::size_t> next{0};
    std::atomic<std::int64_t> longest{0};
    std::mutex of_failure;
    std::vector<std::thread> all;
    for (std::size_t t = 0; t < threads; ++t)
        all.emplace_back([&] {
            for (std::size_t i = next++; i < count; i = next++) {
                const auto start = steady::now();
                try {
                    one(i);
                } catch (const std::exception& thrown) {
                    const std::lock_guard guard(of_failure);
                    failure += std::to_string(i) + ": " + thrown.what() + "\n";
                }
                const auto time =
                    std::chrono::duration_cast<std::chrono::milliseconds>(steady::now() - start);
                for (auto seen = longest.load();
                     seen < time.count() && !longest.compare_exchange_weak(seen, time.count());) {}
            }
        });
    for (std::thread& thread : all) thread.join();
    return std::chrono::milliseconds(longest.load());
}

template <class Condition>
bool soon(Condition&& condition) {
    for (int i = 0; i < 1000; ++i) {
        if (condition()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
}

struct counting_observer : observer {
    std::atomic<int> failures{0};
    observer* before = set_observer(this);
    void release_failed(const error&) noexcept override { ++failures; }
    ~counting_observer() override { set_observer(before); }
};

}  // namespace

TEST_CASE("Hundreds of endpoints are made and removed by many threads, and nothing is left") {
    NEEDS_NETNS;
    const std::size_t count = endpoints_wanted();
    if (!may_open(count * 4 + 200)) KUMIKI_SKIP("RLIMIT_NOFILE is too low for so many endpoints");
    const auto before = kumiki_test::holdings::now();
    {
        const counting_observer told;
        const kumiki_test::scratch place;
        const private_netns host;
        bring_loopback_up(host.fd());
        auto socket = netlink_socket::open_in(host.fd(), NETLINK_ROUTE);
        auto net = std::make_optional(host.run([&] {
            return bridge_network::open({.name = "web",
                                         .subnet = "10.88.0.0/20"_cidr,
                                         .subnet6 = "fd00:88::/64"_cidr,
                                         .state_directory = place.path()});
        }));
        const std::string own =
            place.path() + "/net-" + std::to_string(socket.netns_cookie()) + "/web/";
        const auto count_ports = [&] {
            const auto links = list_links(socket);
            return std::count_if(links.begin(), links.end(),
                                 [](const link_info& each) { return each.kind == "veth"; });
        };
        const std::string empty = ruleset_of(host);
        REQUIRE(empty.find("kumiki-web") != std::string::npos);
        REQUIRE(count_known_namespaces(socket) == 0);

        std::vector<std::optional<private_netns>> inside(count);
        std::vector<std::optional<endpoint>> links(count);
        std::string failures;
        const auto make = [&](std::size_t i) {
            inside[i].emplace();
            auto held = host.run([&] {
                return reserve(
                    net->attach({.publish = {tcp(static_cast<std::uint16_t>(20000 + i), 80)},
                                 .egress = allow_all().deny("192.0.2.0/24"_cidr, tcp(25))}),
                    "box" + std::to_string(i));
            });
            links[i].emplace(std::move(held).connect(inside[i]->fd()));
        };
        const auto remove = [&](std::size_t i) {
            if (i % 3 == 0) links[i]->disconnect();
            if (i % 3 == 1) links[i]->disconnect_soon();
            if (i % 3 == 2) inside[i].reset();  // the kernel takes the pair away beside us
            links[i].reset();
            inside[i].reset();
        };
        const auto longest_connect = by_threads(count, failures, make);
        CHECK(failures.empty());
        INFO(failures);
        CHECK(count_ports() == static_cast<std::ptrdiff_t>(count));
        CHECK(soon([&] { return count_known_namespaces(socket) == count; }));
        CHECK(count_leases(own + "leases4") == count);
        CHECK(count_leases(own + "leases6") == count);
        const std::string full = ruleset_of(host);
        for (std::size_t i = 0; i < count; i += 7)
            CHECK(full.find("chain out-box" + std::to_string(i) + " ") != std::string::npos);

        const auto longest_removal = by_threads(count, failures, remove);
        // And made and removed at the same time.
        const auto longest_mixed = by_threads(count / 2, failures, [&](std::size_t i) {
            make(i);
            remove(i);
        });
        CHECK(failures.empty());
        INFO(failures);
        net->attach().network->remover->drain();
        CHECK(count_ports() == 0);
        CHECK(count_leases(own + "leases4") == 0);
        CHECK(count_leases(own + "leases6") == 0);
        CHECK(ruleset_of(host) == empty);
        CHECK(soon([&] { return count_known_namespaces(socket) == 0; }));
        CHECK(told.failures == 0);
        // Nobody waited for the lock of all links for long; a removal waits for RCU under it.
        const auto limit = std::chrono::seconds(10);
        CHECK(longest_connect < limit);
        CHECK(longest_removal < limit);
        CHECK(longest_mixed < limit);
        net.reset();
        CHECK(list_links(socket).size() == 1);
        CHECK(kumiki_test::names_in(place.path()).empty());
        CHECK(ruleset_of(host).find("kumiki-web") == std::string::npos);
    }
    KUMIKI_CHECK_NOTHING_LEFT(before);
}
