#include <linux/rtnetlink.h>

#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <kumiki/async/timeout.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/multicast.hpp>

#include "async/both_backends.hpp"
#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace std::chrono_literals;
using kumiki_test::private_netns;

namespace {

/// A link that came, changed or went.
struct link_event {
    link_info link;
    bool is_gone = false;
};

std::optional<link_event> parse(const netlink_message& message) {
    if (message.type() != RTM_NEWLINK && message.type() != RTM_DELLINK) return std::nullopt;
    return link_event{parse_link(message), message.type() == RTM_DELLINK};
}

using link_stream = stream<std::optional<link_event>>;

link_stream watch_links(scheduler& io, const private_netns& ns,
                        std::size_t room = netlink_subscription::default_room) {
    return netlink_subscription::open_in(ns.fd(), NETLINK_ROUTE, {RTNLGRP_LINK}, room)
        .events(io, parse);
}

/// The next event, for which it waits at most five seconds.
task<std::optional<link_event>> next(scheduler& io, link_stream& events) {
    auto taken = co_await with_timeout(io, 5s, events.next());
    if (!taken) throw error(ETIMEDOUT, {.operation = "wait for an event"});
    co_return std::move(**taken);
}

/// A socket in `ns`, whose loopback is up: changes of what is down are not told.
netlink_socket socket_in(const private_netns& ns) {
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    set_link(batch, "lo", {.up = true});
    socket.transact(batch);
    return socket;
}

void change(netlink_socket& socket, const char* link, std::string alias) {
    netlink_batch batch;
    set_link(batch, link, {.alias = std::move(alias)});
    socket.transact(batch);
}

}  // namespace

TEST_CASE("Links that come and go are told in their order, from the subscription on") {
    NEEDS_NETNS;
    KUMIKI_ON_BOTH_BACKENDS(io);
    const private_netns ns;
    auto socket = socket_in(ns);
    auto events = watch_links(io, ns);
    netlink_batch batch;
    create_bridge(batch, {.name = "d0"});
    delete_link(batch, "d0");
    socket.transact(batch);
    bool came = false;
    for (;;) {
        const auto event = io.run(next(io, events));
        REQUIRE(event);
        CHECK(event->link.name == "d0");
        if (event->is_gone) break;
        came = true;
    }
    CHECK(came);
}

TEST_CASE("A stream waits for what is told later, and a stop loses nothing") {
    NEEDS_NETNS;
    KUMIKI_ON_BOTH_BACKENDS(io);
    const private_netns ns;
    auto socket = socket_in(ns);
    auto events = watch_links(io, ns);
    std::jthread later([&] {
        std::this_thread::sleep_for(20ms);
        change(socket, "lo", "first");
    });
    auto event = io.run(next(io, events));
    REQUIRE(event);
    CHECK(event->link.alias == "first");
}

TEST_CASE("After ten thousand events in a small queue one loss is told, and the state is right") {
    NEEDS_NETNS;
    KUMIKI_ON_BOTH_BACKENDS(io);
    const private_netns ns;
    auto socket = socket_in(ns);
    auto events = watch_links(io, ns, 8192);
    std::string known;
    netlink_batch batch;
    for (int i = 0; i < 10000; ++i) set_link(batch, "lo", {.alias = "number " + std::to_string(i)});
    socket.transact(batch);

    const auto first = io.run(next(io, events));
    REQUIRE_FALSE(first);  // told before anything that is out of date
    CHECK(find_link(socket, "lo")->alias == "number 9999");
    // The next event is newer than the loss, and no second loss is told.
    change(socket, "lo", "after");
    const auto second = io.run(next(io, events));
    REQUIRE(second);
    CHECK(second->link.alias == "after");
}

TEST_CASE("With room for all of them ten thousand events are ten thousand") {
    NEEDS_NETNS;
    KUMIKI_ON_BOTH_BACKENDS(io);
    const private_netns ns;
    auto socket = socket_in(ns);
    auto events = watch_links(io, ns, std::size_t{128} << 20);
    netlink_batch batch;
    for (int i = 0; i < 10000; ++i) set_link(batch, "lo", {.alias = "number " + std::to_string(i)});
    socket.transact(batch);
    int wrong = 0;
    for (int i = 0; i < 10000; ++i) {
        const auto event = io.run(next(io, events));
        REQUIRE(event);
        wrong += event->link.alias == "number " + std::to_string(i) ? 0 : 1;
    }
    CHECK(wrong == 0);
}

TEST_CASE("A group that is none is refused by its number") {
    try {
        (void)netlink_subscription::open(NETLINK_ROUTE, {4711});
        FAIL("it was joined");
    } catch (const error& refused) {
        INFO(refused.what());
        CHECK(refused.errno_value() == EINVAL);
        CHECK(refused.object() == "4711");
    }
}

TEST_CASE("What a stranger sends to a subscription is no event") {
    NEEDS_NETNS;
    KUMIKI_ON_BOTH_BACKENDS(io);
    const private_netns ns;
    auto socket = socket_in(ns);
    auto subscribed = netlink_subscription::open_in(ns.fd(), NETLINK_ROUTE, {RTNLGRP_LINK});
    sockaddr_nl to{};
    socklen_t size = sizeof to;
    REQUIRE(::getsockname(subscribed.fd(), reinterpret_cast<sockaddr*>(&to), &size) == 0);
    auto events = std::move(subscribed).events(io, parse);
    struct {
        nlmsghdr head;
        ifinfomsg body;
    } forged{};
    forged.head = {.nlmsg_len = sizeof forged,
                   .nlmsg_type = RTM_DELLINK,
                   .nlmsg_flags = 0,
                   .nlmsg_seq = 0,
                   .nlmsg_pid = 0};
    REQUIRE(to.nl_pid != 0);
    REQUIRE(::sendto(socket.fd(), &forged, sizeof forged, 0, reinterpret_cast<sockaddr*>(&to),
                     sizeof to) == sizeof forged);
    change(socket, "lo", "true");
    const auto event = io.run(next(io, events));
    REQUIRE(event);
    CHECK_FALSE(event->is_gone);
    CHECK(event->link.alias == "true");
}
