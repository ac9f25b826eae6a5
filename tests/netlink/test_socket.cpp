#include <linux/rtnetlink.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>

#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/socket.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using kumiki_test::private_netns;

TEST_CASE("A socket opened in another namespace is there, and the caller is not") {
    NEEDS_NETNS;
    const private_netns ns;
    const auto here = netlink_socket::open(NETLINK_ROUTE);
    const auto there = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    CHECK(here.netns_cookie() != there.netns_cookie());
    CHECK(netlink_socket::open(NETLINK_ROUTE).netns_cookie() == here.netns_cookie());
    constexpr unsigned long siocgskns = 0x894C;
    const unique_fd behind(::ioctl(there.fd(), siocgskns));
    REQUIRE(behind);
    struct stat a{};
    struct stat b{};
    REQUIRE(::fstat(behind.get(), &a) == 0);
    REQUIRE(::fstat(ns.fd(), &b) == 0);
    CHECK(a.st_ino == b.st_ino);
}

TEST_CASE("A namespace that is none is refused by name") {
    const unique_fd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    CHECK_THROWS_AS(netlink_socket::open_in(file.get(), NETLINK_ROUTE), error);
    CHECK_THROWS_AS(netlink_socket::open_in(-1, NETLINK_ROUTE), error);
    CHECK_THROWS_AS(netlink_socket::open(4711), error);
}

TEST_CASE("A socket can be released to a descriptor and made from one") {
    auto socket = netlink_socket::open(NETLINK_ROUTE);
    netlink_socket again(socket.release());
    CHECK(socket.fd() == -1);
    CHECK(find_link(again, "lo"));
}

TEST_CASE("A refused request is named with its operation, its object and the kernel's words") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    batch.add(RTM_NEWLINK, detail::create_flags, ifinfomsg{}, {"create link", "x0"});
    batch.text(IFLA_IFNAME, "x0");
    {
        const auto info = batch.nested(IFLA_LINKINFO);
        batch.text(IFLA_INFO_KIND, "no-such-kind");
    }
    try {
        socket.transact(batch);
        FAIL("it was taken");
    } catch (const error& refused) {
        INFO(refused.what());
        CHECK(refused.errno_value() == EOPNOTSUPP);
        CHECK(refused.operation() == "create link");
        CHECK(refused.object() == "x0");
        CHECK(refused.remedy().find("Unknown device type") != std::string::npos);
    }
}

TEST_CASE("The error names the attribute that the kernel points at") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    batch.add(RTM_GETLINK, 0, ifinfomsg{}, {"look up link", "long"});
    batch.u32(IFLA_EXT_MASK, 0);
    batch.text(IFLA_IFNAME, "0123456789abcdef0123456789");
    const auto failures = socket.submit(batch);
    REQUIRE(failures.size() == 1);
    INFO(failures[0].detail);
    CHECK(failures[0].code == ERANGE);
    CHECK(failures[0].detail.find("[attribute " + std::to_string(IFLA_IFNAME)) !=
          std::string::npos);
}

TEST_CASE("In a batch each request is answered for itself, also those without acknowledgement") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    create_bridge(batch, {.name = "d0"});
    batch.add(RTM_DELLINK, 0, ifinfomsg{}, {"delete link", "gone"});
    batch.text(IFLA_IFNAME, "gone");
    create_bridge(batch, {.name = "d1"});
    get_link(batch, "d1");
    std::vector<std::string> replies;
    const auto failures = socket.submit(batch, [&](std::size_t index, const netlink_message& m) {
        CHECK(index == 3);
        replies.push_back(parse_link(m).name);
    });
    REQUIRE(failures.size() == 1);
    CHECK(failures[0].index == 1);
    CHECK(failures[0].code == ENODEV);
    CHECK(replies == std::vector<std::string>{"d1"});
    CHECK(find_link(socket, "d0"));
}

TEST_CASE("An empty batch is nothing to do") {
    auto socket = netlink_socket::open(NETLINK_ROUTE);
    netlink_batch batch;
    CHECK(socket.submit(batch).empty());
}

TEST_CASE("A batch larger than the socket's buffers is carried out whole") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    for (int i = 0; i < 3000; ++i) set_link(batch, "lo", {.alias = std::string(200, 'x')});
    CHECK(batch.bytes().size() > 500000);
    socket.transact(batch);
    CHECK(find_link(socket, "lo")->alias == std::string(200, 'x'));
}

TEST_CASE("A reply with a wrong number in it, of an earlier request, is passed over") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    // An answer that is left in the queue, with a number outside the next batch's.
    struct {
        nlmsghdr head;
        ifinfomsg body;
    } stale{};
    stale.head = {.nlmsg_len = sizeof stale,
                  .nlmsg_type = RTM_GETLINK,
                  .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
                  .nlmsg_seq = 0xdeadbeef,
                  .nlmsg_pid = 0};
    stale.body.ifi_index = 1;
    REQUIRE(::send(socket.fd(), &stale, sizeof stale, 0) == sizeof stale);
    CHECK(!find_link(socket, "nothing"));
    CHECK(find_link(socket, 1)->name == "lo");
}

TEST_CASE("A message from another process is not taken for the kernel's") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    CHECK(find_link(socket, "lo"));  // it is bound now
    sockaddr_nl own{};
    socklen_t size = sizeof own;
    REQUIRE(::getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&own), &size) == 0);
    // Number 2 is the next request's: the kernel's answer to it is ENODEV, the forged one 0.
    const unique_fd liar = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE).release();
    struct {
        nlmsghdr head;
        nlmsgerr body;
    } forged{};
    forged.head = {.nlmsg_len = sizeof forged,
                   .nlmsg_type = NLMSG_ERROR,
                   .nlmsg_flags = 0,
                   .nlmsg_seq = 2,
                   .nlmsg_pid = own.nl_pid};
    forged.body.error = -EOWNERDEAD;
    REQUIRE(::sendto(liar.get(), &forged, sizeof forged, 0, reinterpret_cast<sockaddr*>(&own),
                     sizeof own) == sizeof forged);
    CHECK(!find_link(socket, "nothing"));
}

TEST_CASE("A dump gives every interface, and a refused dump its error") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    for (int i = 0; i < 300; ++i) create_bridge(batch, {.name = "d" + std::to_string(i)});
    socket.transact(batch);
    const auto links = list_links(socket);
    std::size_t found = 0;
    for (const auto& link : links) found += link.kind == "bridge" ? 1 : 0;
    CHECK(found == 300);

    netlink_batch bad;
    rtmsg header{};
    header.rtm_family = AF_INET;
    header.rtm_src_len = 1;  // strict checking refuses it
    bad.add(RTM_GETROUTE, NLM_F_DUMP, header, {"list routes"});
    try {
        (void)socket.dump(bad, [](const netlink_message&) { return std::optional<int>(); });
        FAIL("it was taken");
    } catch (const error& refused) {
        INFO(refused.what());
        CHECK(refused.errno_value() == EINVAL);
        CHECK(refused.operation() == "list routes");
        CHECK(!refused.remedy().empty());
    }
}

TEST_CASE("A dump under change gives the steady interfaces once each, or a typed error") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    for (int i = 0; i < 200; ++i) create_bridge(batch, {.name = "steady" + std::to_string(i)});
    socket.transact(batch);
    std::atomic<bool> stop{false};
    std::thread churn([&, other = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE)]() mutable {
        for (int i = 0; !stop; ++i) {
            netlink_batch one;
            const std::string name = "churn" + std::to_string(i % 50);
            create_bridge(one, {.name = name});
            delete_link(one, name);
            (void)other.submit(one);
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    });
    int whole = 0;
    for (int round = 0; round < 20; ++round) {
        try {
            std::size_t steady = 0;
            for (const auto& link : list_links(socket)) steady += link.name[0] == 's' ? 1 : 0;
            whole += steady >= 200 ? 1 : 0;  // sit0 may be there as well
            CHECK(steady >= 200);
        } catch (const error& disturbed) {
            CHECK(disturbed.errno_value() == EINTR);
        }
    }
    stop = true;
    churn.join();
    CHECK(list_links(socket).size() >= 201);
    INFO(whole << " of 20 dumps were whole");
    CHECK(whole > 0);
}

TEST_CASE("An answer that is longer than any buffer so far arrives whole") {
    NEEDS_NETNS;
    const private_netns ns;
    // Without NETLINK_CAP_ACK a refusal brings the whole request back, and what is said of it behind.
    netlink_socket socket(ns.run([] {
        unique_fd fd(sys::check(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE),
                                "open netlink socket"));
        const int on = 1;
        ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
        return fd;
    }));
    CHECK(find_link(socket, "lo"));  // the buffer has its first size
    for (const std::size_t size : {std::size_t{32700}, std::size_t{40000}, std::size_t{60000}}) {
        CAPTURE(size);
        netlink_batch batch;
        for (int i = 0; i < 3; ++i) {
            batch.add(RTM_NEWLINK, NLM_F_ACK, ifinfomsg{}, {"change link", "gone"});
            batch.text(IFLA_IFNAME, "gone");
            batch.data(IFLA_MAX + 100, std::vector<std::byte>(size));
        }
        const auto failures = socket.submit(batch);
        REQUIRE(failures.size() == 3);
        CHECK(failures[2].index == 2);
        CHECK(failures[2].code == ENODEV);
    }
    CHECK(find_link(socket, "lo")->name == "lo");
}

TEST_CASE("A dump whose parts were lost is begun again until it is whole") {
    NEEDS_NETNS;
    const private_netns ns;
    auto maker = netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    netlink_batch batch;
    for (int i = 0; i < 300; ++i) create_bridge(batch, {.name = "d" + std::to_string(i)});
    maker.transact(batch);
    // A member of a group gets what it did not ask for into the same queue, until it is full.
    netlink_socket socket(ns.run([] { return netlink_socket::open(NETLINK_ROUTE).release(); }));
    sockaddr_nl own{};
    own.nl_family = AF_NETLINK;
    own.nl_groups = RTMGRP_LINK;
    REQUIRE(::bind(socket.fd(), reinterpret_cast<sockaddr*>(&own), sizeof own) == 0);
    const int small = 4096;
    REQUIRE(::setsockopt(socket.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
    netlink_batch more;
    set_link(more, "lo", {.up = true});
    for (int i = 0; i < 200; ++i) set_link(more, "lo", {.alias = "number " + std::to_string(i)});
    maker.transact(more);
    std::size_t found = 0;
    for (const auto& link : list_links(socket)) found += link.kind == "bridge" ? 1 : 0;
    CHECK(found == 300);
}
