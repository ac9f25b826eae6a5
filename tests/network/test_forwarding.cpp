#include <cstdlib>
#include <fstream>

#include <kumiki/netlink/route.hpp>
#include <kumiki/network/forwarding.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;

namespace {

struct noting_observer : observer {
    std::string text;
    observer* before = set_observer(this);
    void notice(std::string_view more) noexcept override { text += more; }
    ~noting_observer() override { set_observer(before); }
};

std::string setting(const private_netns& ns, const std::string& key) {
    return ns.run(
        [&] { return std::string(trim(sys::read_file_at(AT_FDCWD, "/proc/sys/net/" + key))); });
}

void set_setting(const private_netns& ns, const std::string& key, const char* value) {
    ns.run([&] { sys::write_file_at(AT_FDCWD, "/proc/sys/net/" + key, value); });
}

// A host between two others: left -- (up0) host (up1) -- right, and km-x like a bridge of ours.
struct three_hosts {
    private_netns left;
    private_netns host;
    private_netns right;
    std::string path;
    unique_fd directory;

    three_hosts() {
        char name[] = "/tmp/kumiki-test-XXXXXX";
        REQUIRE(::mkdtemp(name) != nullptr);
        path = name;
        directory = sys::open_at(AT_FDCWD, path, O_RDONLY | O_DIRECTORY);
        set_setting(host, "ipv4/conf/all/forwarding", "0");
        join(left, "up0", "10.1.0.1/24"_cidr, "10.1.0.2/24"_cidr, "fd01::1/64"_cidr,
             "fd01::2/64"_cidr);
        join(right, "up1", "10.2.0.1/24"_cidr, "10.2.0.2/24"_cidr, "fd02::1/64"_cidr,
             "fd02::2/64"_cidr);
    }
    ~three_hosts() {
        ::unlinkat(directory.get(), "forwarding", 0);
        ::rmdir(path.c_str());
    }
    void join(const private_netns& other, const std::string& name, cidr near, cidr far, cidr near6,
              cidr far6) const {
        auto out = netlink_socket::open_in(host.fd(), NETLINK_ROUTE);
        auto in = netlink_socket::open_in(other.fd(), NETLINK_ROUTE);
        netlink_batch veth;
        create_veth(veth, {.name = name, .peer_name = "eth0", .peer_netns = other.fd()});
        set_link(veth, name, {.no_link_local = true});
        set_link(veth, name, {.up = true});
        out.transact(veth);
        netlink_batch near_side;
        const int near_link = find_link(out, name)->index;
        add_address(near_side, near_link, near);
        add_address(near_side, near_link, near6);
        // Without one a host does not look for the neighbours of packets that it forwards.
        add_address(near_side, near_link, find_link(out, name)->mac.value().link_local());
        out.transact(near_side);
        netlink_batch far_side;
        const int far_link = find_link(in, "eth0")->index;
        set_link(far_side, far_link, {.no_link_local = true});
        set_link(far_side, far_link, {.up = true});
        add_address(far_side, far_link, far);
        add_address(far_side, far_link, far6);
        add_route(far_side, default_route(near.address));
        add_route(far_side, default_route(near6.address));
        in.transact(far_side);
    }
    bool crosses(ip_address to) const { return crosses(to, right); }
    bool crosses(ip_address to, const private_netns& there) const {
        const auto server = kumiki_test::serve(there, SOCK_DGRAM, to, 7);
        return kumiki_test::reaches(left, SOCK_DGRAM, to, 7, server, 300).has_value();
    }
    /// As above, for what should: a datagram may be lost while the links come up.
    template <class... There>
    bool comes_across(const ip_address& to, const There&... there) const {
        for (int attempt = 0; attempt < 10; ++attempt)
            if (crosses(to, there...)) return true;
        return false;
    }
};

}  // namespace

TEST_CASE("Forwarding is switched on for the uplinks, told, guarded and switched off again") {
    NEEDS_NETNS;
    const three_hosts test;
    noting_observer told;
    enable_forwarding(test.directory.get(), test.host.fd(), {}, ip_family::v4);
    CHECK(setting(test.host, "ipv4/conf/up0/forwarding") == "1");
    CHECK(setting(test.host, "ipv4/conf/up1/forwarding") == "1");
    CHECK(setting(test.host, "ipv4/ip_forward") == "0");
    CHECK(setting(test.host, "ipv6/conf/all/forwarding") == "0");
    CHECK(told.text.find("up0") != std::string::npos);
    CHECK(!test.crosses("10.2.0.2"_ip));  // the host is still no router

    told.text.clear();
    enable_forwarding(test.directory.get(), test.host.fd(), {}, ip_family::v4);
    CHECK(told.text.empty());
    restore_forwarding(test.directory.get(), test.host.fd());
    CHECK(setting(test.host, "ipv4/conf/up0/forwarding") == "0");
    CHECK(setting(test.host, "ipv4/conf/up1/forwarding") == "0");
    CHECK(!sys::try_read_file_at(test.directory.get(), "forwarding"));
}

TEST_CASE("The guard and nothing else is what keeps the host from routing") {
    NEEDS_NETNS;
    const three_hosts test;
    enable_forwarding(test.directory.get(), test.host.fd(), {}, ip_family::v6);
    CHECK(!test.crosses("10.2.0.2"_ip));
    CHECK(!test.crosses("fd02::2"_ip));
    test.host.run([] { detail::guard_forwarding({}); });
    CHECK(test.comes_across("10.2.0.2"_ip));
    CHECK(test.comes_across("fd02::2"_ip));
    restore_forwarding(test.directory.get(), test.host.fd());
    CHECK(!test.crosses("10.2.0.2"_ip));
    CHECK(!test.crosses("fd02::2"_ip));
}

TEST_CASE("Traffic of a bridge of kumiki's passes the guard") {
    NEEDS_NETNS;
    const three_hosts test;
    const private_netns container;
    test.join(container, "km-x", "10.3.0.1/24"_cidr, "10.3.0.2/24"_cidr, "fd03::1/64"_cidr,
              "fd03::2/64"_cidr);
    enable_forwarding(test.directory.get(), test.host.fd(), {}, ip_family::v6);
    CHECK(test.comes_across("10.3.0.2"_ip, container));
    CHECK(test.comes_across("fd03::2"_ip, container));
    CHECK(setting(test.host, "ipv4/conf/km-x/forwarding") == "0");  // the network's own business
    restore_forwarding(test.directory.get(), test.host.fd());
}

TEST_CASE("IPv6 forwarding keeps router advertisements working and is changed back") {
    NEEDS_NETNS;
    const three_hosts test;
    REQUIRE(setting(test.host, "ipv6/conf/up0/accept_ra") == "1");
    set_setting(test.host, "ipv6/conf/up1/accept_ra", "0");
    enable_forwarding(test.directory.get(), test.host.fd(), {"up0"}, ip_family::v6);
    CHECK(setting(test.host, "ipv6/conf/all/forwarding") == "1");
    CHECK(setting(test.host, "ipv6/conf/up0/accept_ra") == "2");
    CHECK(setting(test.host, "ipv6/conf/up1/accept_ra") == "0");
    CHECK(setting(test.host, "ipv4/conf/up1/forwarding") == "0");  // not named
    restore_forwarding(test.directory.get(), test.host.fd());
    CHECK(setting(test.host, "ipv6/conf/all/forwarding") == "0");
    CHECK(setting(test.host, "ipv6/conf/up0/accept_ra") == "1");
    CHECK(setting(test.host, "ipv4/conf/up0/forwarding") == "0");
}

TEST_CASE("A host that forwards already is left as it is") {
    NEEDS_NETNS;
    const three_hosts test;
    set_setting(test.host, "ipv4/conf/all/forwarding", "1");
    set_setting(test.host, "ipv6/conf/all/forwarding", "1");
    noting_observer told;
    enable_forwarding(test.directory.get(), test.host.fd(), {}, ip_family::v6);
    CHECK(told.text.empty());
    CHECK(test.comes_across("10.2.0.2"_ip));
    restore_forwarding(test.directory.get(), test.host.fd());
    CHECK(setting(test.host, "ipv4/ip_forward") == "1");
    CHECK(setting(test.host, "ipv6/conf/all/forwarding") == "1");
}

TEST_CASE("An uplink that is gone does not hinder the rest from being changed back") {
    NEEDS_NETNS;
    const three_hosts test;
    enable_forwarding(test.directory.get(), test.host.fd(), {}, ip_family::v6);
    auto socket = netlink_socket::open_in(test.host.fd(), NETLINK_ROUTE);
    netlink_batch gone;
    delete_link(gone, "up0");
    socket.transact(gone);
    restore_forwarding(test.directory.get(), test.host.fd());
    CHECK(setting(test.host, "ipv4/conf/up1/forwarding") == "0");
    CHECK(setting(test.host, "ipv6/conf/all/forwarding") == "0");
}

TEST_CASE("An uplink that is not there is refused by name, with nothing changed") {
    NEEDS_NETNS;
    const three_hosts test;
    CHECK_THROWS_AS(
        enable_forwarding(test.directory.get(), test.host.fd(), {"up0", "up9"}, ip_family::v6),
        invalid_input);
    CHECK(setting(test.host, "ipv4/conf/up0/forwarding") == "0");
    CHECK(!sys::try_read_file_at(test.directory.get(), "forwarding"));
}
