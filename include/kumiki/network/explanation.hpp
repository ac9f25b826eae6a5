// What explain() is asked about networks, and what it answers.
//
// Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/network/firewall_rules.hpp>
#include <kumiki/network/packet.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0 {

/// What becomes of a packet.
struct explanation {
    access verdict = access::allow;  ///< access::deny for what is not known
    /// False when it is for the rules of a container that is connected elsewhere to say.
    bool is_known = true;
    /// The rule that decided; of a packet that passes, the last one. Empty: no rule is about it.
    std::string rule{};
    /// Where it came by, in order: chains, and the rules in them that let it go on.
    std::vector<std::string> path{};
    /// Where a published port led it to.
    std::optional<address_port> led_to{};
};

/// One network's rules: the shared ones, and those of its containers.
struct network_rules {
    firewall_options options{};
    std::vector<firewall_rules> containers{};
    /// Addresses of containers that are connected, but whose rules are not known.
    std::vector<ip_address> elsewhere{};
};

}  // namespace kumiki::inline v0
