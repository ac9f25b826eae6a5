#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/interface_settings.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/scratch.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;

namespace {

struct settings_host {
    kumiki_test::scratch place;
    private_netns ns;
    private_netns inside;
    std::optional<bridge_network> net = ns.run([&] {
        return bridge_network::open(
            {.name = "web", .subnet = "10.88.0.0/24"_cidr, .state_directory = place.path()});
    });

    endpoint connect(attach_options options) const {
        return ns.run([&] { return reserve(net->attach(std::move(options)), "box"); })
            .connect(inside.fd());
    }
    std::string setting(const std::string& key) const {
        return inside.run(
            [&] { return std::string(trim(sys::read_file_at(AT_FDCWD, "/proc/sys/net/" + key))); });
    }
};

// True when the UDP checksum of the first datagram from the container is right in what a program
// that reads packets raw on the host's end of the pair sees.
bool checksum_is_right(const settings_host& host, const endpoint& link) {
    const unique_fd raw = host.ns.run([&] {
        unique_fd fd(sys::check(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_ALL)),
                                "packet socket"));
        sockaddr_ll at{};
        at.sll_family = AF_PACKET;
        at.sll_protocol = htons(ETH_P_ALL);
        at.sll_ifindex = static_cast<int>(::if_nametoindex(link.host_link().c_str()));
        sys::check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), "bind");
        return fd;
    });
    const unique_fd client = host.inside.run([&] {
        unique_fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        const auto [to, size] = kumiki_test::endpoint_address("10.88.0.1"_ip, 9).to_kernel();
        ::sendto(fd.get(), "ping", 4, 0, reinterpret_cast<const sockaddr*>(&to), size);
        return fd;
    });
    while (kumiki_test::wait_for(raw.get(), POLLIN, 3000)) {
        std::uint8_t packet[64] = {};
        const auto size = ::recv(raw.get(), packet, sizeof packet, 0);
        if (size != 32 || packet[9] != 17) continue;
        // The pseudo header: both addresses, the protocol and the length; then all of it.
        std::uint32_t sum = 17 + 12;
        for (int i = 12; i < 32; i += 2)
            sum += static_cast<unsigned>(packet[i] << 8 | packet[i + 1]);
        while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
        return sum == 0xffff;
    }
    FAIL("no packet came");
    return false;
}

}  // namespace

TEST_CASE("The settings that were asked for are those of the container's interface alone") {
    NEEDS_NETNS;
    settings_host host;
    const auto link = host.connect({.settings = {{ip_family::v4, "rp_filter", "2"},
                                                 {ip_family::v4, "arp_ignore", "3"},
                                                 {ip_family::v4, "forwarding", "1"},
                                                 {ip_family::v6, "accept_ra", "0"}}});
    CHECK(host.setting("ipv4/conf/eth0/rp_filter") == "2");
    CHECK(host.setting("ipv4/conf/eth0/arp_ignore") == "3");
    CHECK(host.setting("ipv4/conf/eth0/forwarding") == "1");  // the user's word against our default
    CHECK(host.setting("ipv4/conf/eth0/accept_redirects") == "0");
    CHECK(host.setting("ipv6/conf/eth0/accept_ra") == "0");
    CHECK(host.setting("ipv4/conf/lo/arp_ignore") == "0");
}

TEST_CASE("A setting that is none, or that the kernel refuses, leaves no endpoint") {
    NEEDS_NETNS;
    settings_host host;
    for (const char* key : {"", "../all/forwarding", "rp_filter/", "RP", "a b"})
        CHECK_THROWS_AS(host.net->attach({.settings = {{ip_family::v4, key, "1"}}}), invalid_input);
    for (const auto& [key, value, code] :
         {std::tuple("no_such_setting", "1", ENOENT), std::tuple("rp_filter", "many", EINVAL)})
        try {
            (void)host.connect({.settings = {{ip_family::v4, key, value}}});
            FAIL("it was taken");
        } catch (const error& refused) {
            INFO(refused.what());
            CHECK(refused.errno_value() == code);
            CHECK(refused.object().find(key) != std::string::npos);
        }
    auto socket = netlink_socket::open_in(host.ns.fd(), NETLINK_ROUTE);
    for (const auto& each : list_links(socket)) CHECK(each.kind != "veth");
}

TEST_CASE("A program that reads packets raw sees a right checksum where that was asked for") {
    NEEDS_NETNS;
    settings_host host;
    {
        const auto link = host.connect({});
        CHECK(!checksum_is_right(host, link));  // nobody computes it between the two ends
    }
    const auto link = host.connect({.checksum = checksums::computed});
    CHECK(checksum_is_right(host, link));
}
