#include <kumiki/netlink/address.hpp>

#include "netlink/veth_pair.hpp"
#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::veth_pair;

TEST_CASE("An address is listed as it was added, at once usable") {
    NEEDS_NETNS;
    veth_pair test;
    const auto address = GENERATE("10.88.0.2/24"_cidr, "10.88.0.2/32"_cidr, "fd00:88::2/64"_cidr);
    CAPTURE(to_string(address));
    netlink_batch batch;
    add_address(batch, test.link, address);
    test.socket.transact(batch);
    const auto found = list_addresses(test.socket, test.link);
    REQUIRE(found.size() == 1);
    CHECK(found[0].address == address);
    CHECK(found[0].link == test.link);
    CHECK(!found[0].is_tentative());
    // A server can be bound to it without waiting: an address under detection refuses that.
    CHECK(kumiki_test::serve(test.ns, SOCK_STREAM, address.address, 80));
    CHECK(list_addresses(test.socket).size() == 1);  // lo is down and has none

    netlink_batch gone;
    delete_address(gone, test.link, address);
    test.socket.transact(gone);
    CHECK(list_addresses(test.socket, test.link).empty());
}

TEST_CASE("The list is of the one interface that was asked for") {
    NEEDS_NETNS;
    veth_pair test;
    const int other = find_link(test.socket, "v1")->index;
    netlink_batch batch;
    add_address(batch, test.link, "10.1.0.1/24"_cidr);
    add_address(batch, test.link, "fd00:1::1/64"_cidr);
    add_address(batch, other, "10.2.0.1/24"_cidr);
    test.socket.transact(batch);
    CHECK(list_addresses(test.socket, test.link).size() == 2);
    CHECK(list_addresses(test.socket, other).size() == 1);
    CHECK(list_addresses(test.socket).size() == 3);
}

TEST_CASE("An address refused is named with its interface") {
    NEEDS_NETNS;
    veth_pair test;
    netlink_batch batch;
    add_address(batch, test.link, "10.1.0.1/24"_cidr);
    add_address(batch, test.link, "10.1.0.1/24"_cidr);
    add_address(batch, 4711, "10.1.0.1/24"_cidr);
    delete_address(batch, test.link, "10.9.0.1/24"_cidr);
    const auto failures = test.socket.submit(batch);
    REQUIRE(failures.size() == 3);
    CHECK(failures[0].code == EEXIST);
    CHECK(failures[1].code == ENODEV);
    CHECK(failures[2].code == EADDRNOTAVAIL);
    INFO(to_error(batch, failures[1]).what());
    CHECK(to_error(batch, failures[1]).object() == "10.1.0.1/24 of interface 4711");
}

TEST_CASE("Asking for the addresses of an interface that is not there is an error") {
    NEEDS_NETNS;
    veth_pair test;
    CHECK_THROWS_AS(list_addresses(test.socket, 4711), error);
}
