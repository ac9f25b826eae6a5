// Who may reach a container, and what it may reach: allow and deny lists with a default, as a value.
//
//   deny_all().allow("10.0.0.53"_ip, udp(53)).allow("192.0.2.0/24"_cidr, tcp(443))
//   allow_all().deny("169.254.169.254"_ip)
//
// The rules are looked at in the order of writing: the first that matches decides; when none does,
// the default. A rule is about the flow's first packet; what answers it is always let through.
// Pure. Left out: rates, labels, logging. firewall.hpp puts a policy into force.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/network/publish.hpp>

namespace kumiki::inline v0 {

/// What a policy says to a flow.
enum class access : std::uint8_t { deny, allow };

/// The peers that a rule is about: a network, or one address as a network of one.
struct policy_peers {
    policy_peers(const cidr& all) : network{all.network(), all.prefix} {}
    policy_peers(const ip_address& address)
        : network{address, static_cast<std::uint8_t>(address.bits())} {}

    cidr network;
};

/// One rule. What it leaves open matches everything.
struct policy_rule {
    access verdict = access::allow;
    std::optional<cidr> peers{};  ///< none: all, of both families
    std::optional<port_match> ports{};  ///< none: all ports of all protocols, ICMP too

    bool operator==(const policy_rule&) const = default;
    /// `transport` is the IANA number; `port` means nothing for protocols without ports.
    constexpr bool matches(const ip_address& peer, std::uint8_t transport,
                           std::uint16_t port) const noexcept {
        return (!peers || peers->contains(peer)) &&
               (!ports || (static_cast<std::uint8_t>(ports->transport) == transport &&
                           ports->ports.contains(port)));
    }
};

/// What a policy says to one flow, and by which of its rules.
struct policy_decision {
    access verdict = access::allow;
    std::optional<std::size_t> rule{};  ///< the index in policy::rules(); none: the default
};

/// Rules and a default.
///
/// Of a container's egress the peers are the destinations *that it writes into its packets* (the host's
/// address for a port published there), and the ports are those of the destination. Of its ingress the
/// peers are the clients' true addresses, and the ports are the container's own (not the host's).
class policy {
  public:
    /// A policy of nothing but a default: see allow_all() and deny_all().
    explicit policy(access otherwise) noexcept : otherwise_(otherwise) {}

    /// Appends a rule that allows `peers` (on `ports` alone).
    policy& allow(policy_peers peers, std::optional<port_match> ports = {}) & {
        return add({access::allow, peers.network, ports});
    }
    /// Appends a rule that allows everybody on `ports`.
    policy& allow(port_match ports) & { return add({access::allow, {}, ports}); }
    /// Appends a rule that denies `peers` (on `ports` alone).
    policy& deny(policy_peers peers, std::optional<port_match> ports = {}) & {
        return add({access::deny, peers.network, ports});
    }
    /// Appends a rule that denies everybody on `ports`.
    policy& deny(port_match ports) & { return add({access::deny, {}, ports}); }

    policy allow(policy_peers peers, std::optional<port_match> ports = {}) && {
        return std::move(allow(peers, ports));
    }
    policy allow(port_match ports) && { return std::move(allow(ports)); }
    policy deny(policy_peers peers, std::optional<port_match> ports = {}) && {
        return std::move(deny(peers, ports));
    }
    policy deny(port_match ports) && { return std::move(deny(ports)); }

    /// What becomes of flows that no rule matches.
    access otherwise() const noexcept { return otherwise_; }
    const std::vector<policy_rule>& rules() const noexcept { return rules_; }
    bool operator==(const policy&) const = default;

    /// What the policy says to a flow with `peer`; see policy_rule::matches().
    policy_decision decide(const ip_address& peer, std::uint8_t transport,
                           std::uint16_t port) const noexcept {
        for (std::size_t i = 0; i < rules_.size(); ++i)
            if (rules_[i].matches(peer, transport, port)) return {rules_[i].verdict, i};
        return {otherwise_, std::nullopt};
    }
    access verdict(const ip_address& peer, std::uint8_t transport,
                   std::uint16_t port) const noexcept {
        return decide(peer, transport, port).verdict;
    }
    access verdict(const ip_address& peer, port_match to) const noexcept {
        return verdict(peer, static_cast<std::uint8_t>(to.transport), to.ports.first);
    }

  private:
    policy& add(policy_rule rule) & {
        rules_.push_back(rule);
        return *this;
    }

    std::vector<policy_rule> rules_;
    access otherwise_;
};

namespace detail {

/// What a rule of a container's policy is called in comments, logs and explanations: "web:out:0",
/// "web:in:rest". The list is "out" or "in".
inline std::string rule_name(std::string_view container, std::string_view list,
                             std::optional<std::size_t> rule) {
    return std::string(container) + ":" + std::string(list) + ":" +
           (rule ? std::to_string(*rule) : "rest");
}

}  // namespace detail

/// Denies what is not allowed by a rule.
inline policy deny_all() { return policy(access::deny); }
/// Allows what is not denied by a rule.
inline policy allow_all() { return policy(access::allow); }

}  // namespace kumiki::inline v0
