// A namespace with a veth pair whose ends are up and have no address of their own accord.
#pragma once

#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/socket.hpp>

#include "support/netns.hpp"

namespace kumiki_test {

struct veth_pair {
    private_netns ns;
    kumiki::netlink_socket socket = kumiki::netlink_socket::open_in(ns.fd(), NETLINK_ROUTE);
    int link = 0;  ///< of v0, whose other end is v1

    veth_pair() {
        kumiki::netlink_batch batch;
        kumiki::create_veth(batch, {.name = "v0", .peer_name = "v1"});
        for (const char* name : {"v0", "v1"}) {
            kumiki::set_link(batch, name, {.no_link_local = true});
            kumiki::set_link(batch, name, {.up = true});
        }
        socket.transact(batch);
        link = kumiki::find_link(socket, "v0")->index;
    }
};

}  // namespace kumiki_test
