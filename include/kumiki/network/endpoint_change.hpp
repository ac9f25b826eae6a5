// What of a connected container can be changed while it runs; see endpoint::update().
//
// Pure. Left out: its addresses and its interface, which stay as long as it is connected.
#pragma once

#include <optional>
#include <vector>

#include <kumiki/network/policy.hpp>
#include <kumiki/network/publish.hpp>

namespace kumiki::inline v0 {

/// A change; what is not set stays as it is.
struct endpoint_change {
    /// All the ports that lead into the container from then on.
    std::optional<std::vector<published_port>> publish = {};
    /// Who may reach them.
    std::optional<policy> ingress = {};
    /// What the container may reach.
    std::optional<policy> egress = {};
    /// Who of the network may reach it by its own address.
    std::optional<policy> direct = {};
};

}  // namespace kumiki::inline v0
