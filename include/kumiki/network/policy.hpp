// Who may reach a container, and what it may reach: allow and deny lists with a default, as a value.
//
//   deny_all().allow("10.0.0.53"_ip, udp(53)).allow("192.0.2.0/24"_cidr, tcp(443))
//   allow_all().deny("169.254.169.254"_ip)
//   deny_all().allow(tcp(22), {.connections = per_minute(6)}).allow(label{"web"}, tcp(5432))
//   deny_all().allow(office, icmp(), {.interface = "eth1"})
//
// The rules are looked at in the order of writing: the first that matches decides; when none does,
// the default. A rule is about the flow's first packet; what answers it is always let through.
// Pure. Left out: rates of each peer by itself. firewall.hpp puts a policy into force, explain.hpp tells what it does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/network/policy_peers.hpp>
#include <kumiki/network/publish.hpp>
#include <kumiki/network/rate.hpp>
#include <kumiki/network/traffic.hpp>

namespace kumiki::inline v0 {

/// What a policy says to a flow.
enum class access : std::uint8_t { deny, allow };

/// What else a rule asks for. What it leaves open is not asked for. A rule about a set, a name, a
/// label or ICMP counts IPv4 and IPv6 each by itself. Counting begins anew when the container's rules are
/// changed or put back.
struct rule_options {
    /// The host's interface on the peer's side: a flow from the container leaves by it, one to the
    /// container comes in by it. Of a container of the same network that is the bridge.
    std::string interface{};
    /// How often flows may begin by this rule; of an allow only. What is beyond goes on to the rules
    /// behind it. (A first packet that is sent again without an answer counts again.)
    std::optional<rate> connections{};
    /// How many flows that began by this rule may live at once; of an allow only. What is beyond goes
    /// on to the rules behind it.
    std::optional<std::uint32_t> at_once{};
    /// How many packets of the flows that this rule is about may pass from who began them; of an
    /// allow only. What is beyond is dropped. Answers are not counted.
    std::optional<rate> packets{};

    bool operator==(const rule_options&) const = default;
};

namespace detail {

/// The options of a rule without any. (As a default argument `{}` would be made in the caller's frame:
/// within a co_await g++ 12 copies that byte by byte, and a string in it breaks.)
inline const rule_options plain_rule{};

}  // namespace detail

/// A flow's first packet, as a policy sees it.
struct policy_question {
    ip_address peer{};
    std::uint8_t transport = 0;  ///< the IANA number
    std::uint16_t port = 0;  ///< means nothing for protocols without ports
    /// Nothing: not known; then rules that name one deny, and do not allow.
    std::optional<std::string_view> interface{};
    const detail::memberships* members = nullptr;  ///< none: nobody has a name
};

/// One rule. What it leaves open matches everything.
struct policy_rule {
    access verdict = access::allow;
    policy_peers peers{};
    traffic about{};
    rule_options options{};

    bool operator==(const policy_rule&) const = default;
    /// True when every flow that `other` matches is matched here, too, however often.
    bool covers(const policy_rule& other) const {
        return !options.connections && !options.at_once && peers.covers(other.peers) &&
               about.covers(other.about) &&
               (options.interface.empty() || options.interface == other.options.interface);
    }
    bool matches(const policy_question& flow) const {
        static const detail::memberships nobody;
        return peers.contains(flow.peer, flow.members != nullptr ? *flow.members : nobody) &&
               about.matches(flow.peer.family(), flow.transport, flow.port) &&
               (options.interface.empty() ||
                (flow.interface ? *flow.interface == options.interface : verdict == access::deny));
    }
};

/// "deny 192.0.2.0/24 tcp 80 by eth0".
inline std::string to_string(const policy_rule& rule) {
    return std::string(rule.verdict == access::allow ? "allow " : "deny ") + to_string(rule.peers) +
           " " + to_string(rule.about) +
           (rule.options.interface.empty() ? "" : " by " + rule.options.interface) +
           (rule.options.connections ? ", flows: " + to_string(*rule.options.connections) : "") +
           (rule.options.at_once ? ", flows at once: " + std::to_string(*rule.options.at_once)
                                 : "") +
           (rule.options.packets ? ", packets: " + to_string(*rule.options.packets) : "");
}

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

    /// Appends a rule that allows `peers` (what is of a kind alone). Errors: invalid_input.
    policy& allow(policy_peers peers, traffic about = {},
                  const rule_options& options = detail::plain_rule) & {
        return add({access::allow, std::move(peers), about, options});
    }
    /// Appends a rule that allows everybody what is of a kind.
    policy& allow(traffic about, const rule_options& options = detail::plain_rule) & {
        return add({access::allow, {}, about, options});
    }
    /// Appends a rule that denies `peers` (what is of a kind alone). Errors: invalid_input.
    policy& deny(policy_peers peers, traffic about = {},
                 const rule_options& options = detail::plain_rule) & {
        return add({access::deny, std::move(peers), about, options});
    }
    /// Appends a rule that denies everybody what is of a kind.
    policy& deny(traffic about, const rule_options& options = detail::plain_rule) & {
        return add({access::deny, {}, about, options});
    }

    policy allow(policy_peers peers, traffic about = {},
                 const rule_options& options = detail::plain_rule) && {
        return std::move(allow(std::move(peers), about, options));
    }
    policy allow(traffic about, const rule_options& options = detail::plain_rule) && {
        return std::move(allow(about, options));
    }
    policy deny(policy_peers peers, traffic about = {},
                const rule_options& options = detail::plain_rule) && {
        return std::move(deny(std::move(peers), about, options));
    }
    policy deny(traffic about, const rule_options& options = detail::plain_rule) && {
        return std::move(deny(about, options));
    }

    /// What becomes of flows that no rule matches.
    access otherwise() const noexcept { return otherwise_; }
    const std::vector<policy_rule>& rules() const noexcept { return rules_; }
    bool operator==(const policy&) const = default;

    /// What the policy says to a flow, and by which rule.
    policy_decision decide(const policy_question& flow) const {
        for (std::size_t i = 0; i < rules_.size(); ++i)
            if (rules_[i].matches(flow)) return {rules_[i].verdict, i};
        return {otherwise_, std::nullopt};
    }
    access verdict(const ip_address& peer, std::uint8_t transport, std::uint16_t port) const {
        return decide({.peer = peer, .transport = transport, .port = port}).verdict;
    }
    access verdict(const ip_address& peer, port_match to) const {
        return verdict(peer, static_cast<std::uint8_t>(to.transport), to.ports.first);
    }

  private:
    policy& add(policy_rule rule) & {
        if (rule.peers.set() != nullptr && rule.peers.set()->empty())
            throw invalid_input("policy", to_string(rule), "Its set of addresses is empty.");
        const rule_options& options = rule.options;
        if (options.connections) require_valid(*options.connections);
        if (options.packets) require_valid(*options.packets);
        if (options.at_once == 0U)
            throw invalid_input("policy", to_string(rule), "It allows no flow at all.");
        if (rule.verdict == access::deny &&
            (options.connections || options.packets || options.at_once))
            throw invalid_input("policy", to_string(rule),
                                "A rate is of what is allowed: what is beyond it is denied by a "
                                "rule behind, or by the default.");
        if (!rule.options.interface.empty()) require_link_name(rule.options.interface);
        rules_.push_back(std::move(rule));
        return *this;
    }

    std::vector<policy_rule> rules_;
    access otherwise_;
};

namespace detail {

/// What a rule of a container's policy is called in comments, logs and explanations: "web:out:0",
/// "web:in:rest". The list is "out", "in" or "direct".
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
