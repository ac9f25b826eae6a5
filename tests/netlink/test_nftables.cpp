#include <cstdio>
#include <string>
#include <vector>

#include <kumiki/netlink/nft_match.hpp>
#include <kumiki/netlink/nftables.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;

namespace {

const nft::table mine{nft::family::inet, "kumiki-test"};

/// What `nft ARGUMENTS` prints about `ns`: an independent reader of the same kernel tables.
std::string nft_says(const private_netns& ns, const std::string& arguments = "list ruleset") {
    return ns.run([&] {
        std::string text;
        FILE* pipe = ::popen(("nft -nn " + arguments + " 2>&1").c_str(), "r");
        REQUIRE(pipe != nullptr);
        char buffer[4096];
        while (const auto n = std::fread(buffer, 1, sizeof buffer, pipe)) text.append(buffer, n);
        ::pclose(pipe);
        return text;
    });
}

bool nft_is_installed() { return ::access("/usr/sbin/nft", X_OK) == 0; }

#define NEEDS_NFT                                                                                  \
    NEEDS_NETNS;                                                                                   \
    if (!nft_is_installed()) KUMIKI_SKIP("there is no nft program to bear witness")

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("A value has the bytes of the packet, and a concatenation pads each field") {
    CHECK(nft::value::wire(0x1234).bytes()[0] == std::byte{0x12});
    CHECK(nft::value("10.0.0.1"_ip).size() == 4);
    CHECK(nft::value(protocol::udp).bytes()[0] == std::byte{17});
    const auto key = nft::concat(protocol::tcp, "10.0.0.1"_ip, nft::value::wire(80));
    CHECK(key.size() == 12);
    CHECK(key.bytes()[9] == std::byte{80});
    CHECK(key.bytes()[3] == std::byte{0});
    CHECK(nft::value::prefix_mask(4, 12).bytes()[1] == std::byte{0xf0});
    CHECK(nft::value("10.0.0.255"_ip).next() == nft::value("10.0.1.0"_ip));
    CHECK(nft::value("255.255.255.255"_ip).next() == nft::value("0.0.0.0"_ip));
}

TEST_CASE("A value that no register or interface name can hold is refused") {
    CHECK_THROWS_AS(nft::value::name(""), invalid_input);
    CHECK_THROWS_AS(nft::value::name("sixteen-bytes-16"), invalid_input);
    CHECK_THROWS_AS(nft::value::zero(65), invalid_input);
    CHECK_THROWS_AS(nft::concat("::1"_ip, "::1"_ip, "::1"_ip, "::1"_ip, protocol::tcp),
                    invalid_input);
}

TEST_CASE("The nft program reads tables, chains and rules as they were written") {
    NEEDS_NFT;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_NETFILTER);
    nft::batch change;
    change.add_table(mine, "made by a test");
    change.add_chain(mine, "forward", {"filter", nft::hook_point::forward, 0, nft::policy::drop});
    change.add_chain(mine, "side");
    change.add_rule(mine, "forward", "first", nft::input_is("br0"),
                    nft::output_is("eth0", NFT_CMP_NEQ), nft::counter{},
                    nft::decide{nft::jump("side")});
    change.add_rule(mine, "side", "", nft::from("10.0.0.0/8"_cidr), nft::to("192.0.2.7/32"_cidr),
                    nft::decide{nft::accept()});
    change.add_rule(mine, "side", "", nft::to("2001:db8::/33"_cidr), nft::decide{nft::leave()});
    change.add_rule(mine, "side", "", nft::protocol_is(protocol::tcp), nft::load_destination_port(),
                    nft::is_port_in({8000, 8010}), nft::decide{nft::drop()});
    change.add_rule(mine, "side", "",
                    nft::state_is_any(nft::ct_state::established | nft::ct_state::related),
                    nft::decide{nft::accept()});
    change.add_rule(mine, "side", "", nft::destination_was_translated(),
                    nft::destination_is_local(), nft::reject{});
    change.add_rule(mine, "side", "", nft::icmp_type_is(IPPROTO_ICMPV6, 134),
                    nft::log_to{5, "advert"}, nft::decide{nft::drop()});
    change.add_rule(mine, "side", "", nft::load_original_destination(ip_family::v4),
                    nft::is_in("10.1.0.0/16"_cidr), nft::decide{nft::go_to("end")});
    change.add_chain(mine, "end");
    CHECK_THROWS_AS(change.commit(socket), error);  // "end" did not exist yet when it was named
    CHECK_FALSE(contains(nft_says(ns), "kumiki-test"));

    nft::batch again;
    again.add_table(mine, "made by a test");
    again.add_chain(mine, "forward", {"filter", nft::hook_point::forward, 0, nft::policy::drop});
    again.add_chain(mine, "side");
    again.add_rule(mine, "forward", "first", nft::input_is("br0"),
                   nft::output_is("eth0", NFT_CMP_NEQ), nft::counter{},
                   nft::decide{nft::jump("side")});
    again.add_rule(mine, "side", "", nft::from("10.0.0.0/8"_cidr), nft::to("192.0.2.7/32"_cidr),
                   nft::decide{nft::accept()});
    again.add_rule(mine, "side", "", nft::to("2001:db8::/33"_cidr), nft::decide{nft::leave()});
    again.add_rule(mine, "side", "", nft::protocol_is(protocol::tcp), nft::load_destination_port(),
                   nft::is_port_in({8000, 8010}), nft::decide{nft::drop()});
    again.add_rule(mine, "side", "",
                   nft::state_is_any(nft::ct_state::established | nft::ct_state::related),
                   nft::decide{nft::accept()});
    again.add_rule(mine, "side", "", nft::destination_was_translated(), nft::destination_is_local(),
                   nft::reject{});
    again.add_rule(mine, "side", "", nft::icmp_type_is(IPPROTO_ICMPV6, 134),
                   nft::log_to{5, "advert"}, nft::decide{nft::drop()});
    CHECK(again.commit(socket) == nft::commit_result::done);
    const std::string text = nft_says(ns);
    INFO(text);
    CHECK(contains(text, "comment \"made by a test\""));
    CHECK(contains(text, "type filter hook forward priority 0; policy drop;"));
    CHECK(contains(text,
                   "iifname \"br0\" oifname != \"eth0\" counter packets 0 bytes 0 jump side "
                   "comment \"first\""));
    CHECK(contains(text, "ip saddr 10.0.0.0/8 ip daddr 192.0.2.7 accept"));
    CHECK(contains(text, "ip6 daddr 2001:db8::/33 return"));
    CHECK(contains(text, "tcp dport 8000-8010 drop"));
    CHECK(contains(text, "ct state 0x2,0x4 accept"));
    CHECK(contains(text, "ct status 0x20 fib daddr type 2 reject with icmpx"));
    CHECK(contains(text, "icmpv6 type 134 log prefix \"advert\" group 5 drop"));
}

TEST_CASE("The nft program reads sets, maps, ranges and their elements as they were written") {
    NEEDS_NFT;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_NETFILTER);
    using namespace nft::fields;
    const nft::set ports{.name = "ports", .key = {port}, .ranges = true};
    const nft::set pairs{.name = "pairs", .key = {ipv4, port}, .ranges = true};
    const nft::set names{.name = "names", .key = {interface, ipv6}};
    const nft::set publish{.name = "publish",
                           .key = {transport, ipv4, port},
                           .kind = nft::set_kind::map,
                           .data = {ipv4, port}};
    const nft::set policy{.name = "policy", .key = {ipv4}, .kind = nft::set_kind::verdict_map};
    nft::batch change;
    change.add_table(mine);
    change.add_chain(mine, "web");
    change.add_chain(mine, "nat", {"nat", nft::hook_point::prerouting, -100});
    change.add_chain(mine, "out", {"nat", nft::hook_point::postrouting, 100});
    change.add_chain(mine, "forward", {"filter", nft::hook_point::forward, 0});
    for (const auto& set : {ports, pairs, names, publish, policy}) change.add_set(mine, set);
    change.add_elements(mine, ports,
                        std::vector<nft::element>{
                            {.key = nft::value::wire(80), .last = nft::value::wire(90)},
                            {.key = nft::value::wire(60000), .last = nft::value::wire(65535)}});
    change.add_elements(
        mine, pairs,
        std::vector<nft::element>{{.key = nft::concat("10.0.0.0"_ip, nft::value::wire(1)),
                                   .last = nft::concat("10.0.0.255"_ip, nft::value::wire(99))}});
    change.add_elements(
        mine, names,
        std::vector<nft::element>{{.key = nft::concat(nft::value::name("veth0"), "fd00::2"_ip)}});
    change.add_elements(
        mine, publish,
        std::vector<nft::element>{
            {.key = nft::concat(protocol::tcp, "192.0.2.1"_ip, nft::value::wire(8080)),
             .data = nft::concat("10.88.0.2"_ip, nft::value::wire(80)),
             .comment = "web"}});
    change.add_elements(
        mine, policy,
        std::vector<nft::element>{{.key = "10.88.0.2"_ip, .data = nft::go_to("web")},
                                  {.key = "10.88.0.3"_ip, .data = nft::drop()}});
    change.add_rule(mine, "nat", "", nft::family_is(ip_family::v4),
                    nft::load_meta{NFT_META_L4PROTO, nft::r(0)},
                    nft::load_address(ip_family::v4, nft::side::destination, nft::r(1)),
                    nft::load_destination_port(nft::r(2)),
                    nft::lookup{.set = "publish", .from = nft::r(0), .into = nft::r(4)},
                    nft::translate{NFT_NAT_DNAT, ip_family::v4, nft::r(4), nft::r(5)});
    change.add_rule(mine, "out", "", nft::masquerade{});
    change.add_rule(mine, "forward", "", nft::family_is(ip_family::v4),
                    nft::load_address(ip_family::v4, nft::side::destination),
                    nft::decide_by("policy"));
    change.add_rule(mine, "forward", "", nft::load_value{nft::value::number(7)}, nft::store_meta{});
    change.commit(socket);
    const std::string text = nft_says(ns);
    INFO(text);
    CHECK(contains(text, "elements = { 80-90, 60000-65535 }"));
    CHECK(contains(text, "10.0.0.0/24 . 1-99"));
    CHECK(contains(text, "\"veth0\" . fd00::2"));
    CHECK(contains(text, "6 . 192.0.2.1 . 8080 comment \"web\" : 10.88.0.2 . 80"));
    CHECK(contains(text, "10.88.0.2 : goto web"));
    CHECK(contains(text, "dnat ip to meta l4proto . ip daddr . th dport map @publish"));
    CHECK(contains(text, "ip daddr vmap @policy"));
    CHECK(contains(text, "meta mark set 0x00000007"));
    CHECK(contains(text, "masquerade"));

    SECTION("an element can be added again, and not with other data") {
        nft::batch same;
        same.add_elements(mine, policy,
                          std::vector<nft::element>{{.key = "10.88.0.3"_ip, .data = nft::drop()}});
        CHECK(same.commit(socket) == nft::commit_result::done);
        nft::batch other;
        other.add_elements(
            mine, policy,
            std::vector<nft::element>{{.key = "10.88.0.3"_ip, .data = nft::accept()}});
        try {
            other.commit(socket);
            FAIL("the kernel took the other verdict");
        } catch (const error& failure) {
            CHECK(failure.errno_value() == EEXIST);
            CHECK(failure.object() == "kumiki-test policy");
        }
    }
    SECTION("elements go by their keys, and one that is not there takes the batch down") {
        nft::batch gone;
        gone.delete_elements(
            mine, ports,
            std::vector<nft::element>{{.key = nft::value::wire(80), .last = nft::value::wire(90)}});
        gone.delete_elements(
            mine, publish,
            std::vector<nft::element>{
                {.key = nft::concat(protocol::tcp, "192.0.2.1"_ip, nft::value::wire(8080))}});
        CHECK(gone.commit(socket) == nft::commit_result::done);
        CHECK_FALSE(contains(nft_says(ns), "80-90"));
        CHECK_FALSE(contains(nft_says(ns), "8080"));
        nft::batch mixed;
        mixed.add_elements(mine, policy,
                           std::vector<nft::element>{{.key = "10.9.9.9"_ip, .data = nft::drop()}});
        mixed.delete_elements(mine, policy, std::vector<nft::element>{{.key = "10.7.7.7"_ip}});
        try {
            mixed.commit(socket);
            FAIL("the kernel deleted what is not there");
        } catch (const error& failure) {
            CHECK(failure.errno_value() == ENOENT);
        }
        CHECK_FALSE(contains(nft_says(ns), "10.9.9.9"));
    }
    SECTION("what is in use is not deleted") {
        nft::batch busy;
        busy.delete_chain(mine, "web");
        try {
            busy.commit(socket);
            FAIL("the chain was deleted below the map");
        } catch (const error& failure) {
            CHECK(failure.errno_value() == EBUSY);
            CHECK(failure.operation() == "delete nftables chain");
            CHECK(failure.object() == "kumiki-test web");
        }
    }
    SECTION("a table goes with everything in it") {
        nft::batch all;
        all.delete_table(mine);
        CHECK(all.commit(socket) == nft::commit_result::done);
        CHECK(nft_says(ns).empty());
    }
}

TEST_CASE("Twenty thousand elements are one transaction") {
    NEEDS_NFT;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_NETFILTER);
    const nft::set many{.name = "many", .key = {nft::fields::ipv4}};
    std::vector<nft::element> elements;
    for (unsigned i = 0; i < 20000; ++i) elements.push_back({.key = "10.0.0.0"_ip.plus(i)});
    nft::batch change;
    change.add_table(mine);
    change.add_set(mine, many);
    change.add_elements(mine, many, elements);
    CHECK(change.commit(socket) == nft::commit_result::done);
    const std::string text = nft_says(ns, "list set inet kumiki-test many");
    CHECK(contains(text, "10.0.78.31"));  // the last
    nft::batch gone;
    gone.delete_elements(mine, many, elements);
    CHECK(gone.commit(socket) == nft::commit_result::done);
    CHECK_FALSE(contains(nft_says(ns, "list set inet kumiki-test many"), "10.0."));
}

TEST_CASE("A batch for a generation that is over does nothing and says so") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_NETFILTER);
    const std::uint32_t before = nft::generation(socket);
    nft::batch first;
    first.require_generation(before);
    first.add_table(mine);
    CHECK(first.commit(socket) == nft::commit_result::done);
    CHECK(nft::generation(socket) != before);
    nft::batch late;
    late.require_generation(before);
    late.delete_table(mine);
    CHECK(late.commit(socket) == nft::commit_result::stale);
    nft::batch late_but_careless;
    late_but_careless.delete_table(mine);
    CHECK_THROWS_AS(late_but_careless.require_generation(1), invalid_input);
    CHECK(late_but_careless.commit(socket) == nft::commit_result::done);
}

TEST_CASE("An empty batch is not sent") {
    netlink_socket none{unique_fd{}};
    nft::batch nothing;
    CHECK(nothing.empty());
    CHECK(nothing.commit(none) == nft::commit_result::done);
}

TEST_CASE("Sets and comments that cannot be are refused before the kernel is asked") {
    nft::batch batch;
    CHECK_THROWS_AS(batch.add_set(mine, {.name = "no key"}), invalid_input);
    CHECK_THROWS_AS(batch.add_set(mine, {.name = "data in a set",
                                         .key = {nft::fields::port},
                                         .data = {nft::fields::port}}),
                    invalid_input);
    CHECK_THROWS_AS(batch.add_set(mine, {.name = "map without data",
                                         .key = {nft::fields::port},
                                         .kind = nft::set_kind::map}),
                    invalid_input);
    nft::batch other;
    CHECK_THROWS_AS(other.add_table(mine, std::string(129, 'x')), invalid_input);
}

TEST_CASE("Who may not change rules is told which capability is missing") {
    NEEDS_NETNS;
    const private_netns ns;
    auto socket = netlink_socket::open_in(ns.fd(), NETLINK_NETFILTER);
    const auto refused = sys::on_own_thread([&]() -> std::optional<error> {
        // Capabilities belong to the thread: this one is not missed.
        if (::syscall(SYS_setresuid, 65534, 65534, 65534) != 0) return std::nullopt;
        nft::batch change;
        change.add_table(mine);
        try {
            change.commit(socket);
        } catch (const error& failure) {
            return failure;
        }
        return std::nullopt;
    });
    if (!refused) KUMIKI_SKIP("the thread could not give up its capabilities");
    CHECK(refused->errno_value() == EPERM);
    CHECK(contains(refused->what(), "CAP_NET_ADMIN"));
}
