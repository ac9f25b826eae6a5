// What a container's options say against themselves: a published port that its own policy closes to
// everybody, a rule that can never decide, a rule about the host's port in place of the container's.
//
//   for (const std::string& each : contradictions(options)) tell(each);
//
// Pure. Nothing here is an error: a port may be published before it is opened. Left out: who has which
// label, and what several rules together cover.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/network/bridge_network.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/publish.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// "in:2 (deny everybody tcp 80)", or "in:rest".
inline std::string text_of_rule(const policy& rules, const char* list,
                                std::optional<std::size_t> rule) {
    if (!rule) return std::string(list) + ":rest (deny all that no rule allows)";
    return std::string(list) + ":" + std::to_string(*rule) + " (" +
           to_string(rules.rules()[*rule]) + ")";
}

/// What closes a container's port to everybody in packets of `family`; nothing when somebody may come.
inline std::optional<policy_decision> closed_by(const policy& rules, ip_family family,
                                                traffic port) {
    for (std::size_t i = 0; i < rules.rules().size(); ++i) {
        const policy_rule& rule = rules.rules()[i];
        const policy_peers all(family == ip_family::v4 ? cidr{ip_address(), 0}
                                                       : cidr::parse("::/0"));
        if (!rule.about.covers(port)) continue;
        if (rule.verdict == access::deny && rule.peers.covers(all) &&
            rule.options.interface.empty())
            return policy_decision{access::deny, i};
        if (rule.verdict == access::deny) continue;
        const cidr* network = rule.peers.network();
        const address_set* set = rule.peers.set();
        if ((network != nullptr && network->address.family() != family) ||
            (set != nullptr && !set->has(family)))
            continue;
        bool void_before = false;
        for (std::size_t j = 0; j < i; ++j)
            void_before = void_before || rules.rules()[j].covers(rule);
        if (!void_before) return std::nullopt;
    }
    if (rules.otherwise() == access::allow) return std::nullopt;
    return policy_decision{access::deny, std::nullopt};
}

/// Published ports that nobody may reach, each run of them with what closes it.
inline void find_closed_ports(const std::vector<published_port>& publish, const policy& ingress,
                              std::vector<std::string>& found) {
    for (const published_port& port : publish) {
        std::optional<std::string> last;
        for (std::uint32_t n = port.container.first; n <= port.container.last; ++n) {
            std::optional<std::string> reason;
            for (const ip_family family : both_families) {
                if (!port.covers(family)) continue;
                const auto one = static_cast<std::uint16_t>(n);
                const auto closed =
                    closed_by(ingress, family, port_match{port.transport, {one, one}});
                reason.reset();
                if (!closed) break;
                reason = text_of_rule(ingress, "in", closed->rule);
            }
            if (reason && reason != last)
                found.push_back(
                    "Port " + to_string(port) + " is published, but nobody may reach " +
                    (port.container.count() == 1 ? "it" : "its port " + std::to_string(n)) + ": " +
                    *reason + ".");
            last = reason;
        }
    }
}

/// Rules behind one that covers them and says the opposite.
inline void find_void_rules(const policy& rules, const char* list,
                            std::vector<std::string>& found) {
    for (std::size_t i = 0; i < rules.rules().size(); ++i)
        for (std::size_t j = 0; j < i; ++j) {
            const policy_rule& first = rules.rules()[j];
            const policy_rule& second = rules.rules()[i];
            if (first.verdict == second.verdict || !first.covers(second)) continue;
            found.push_back("Rule " + text_of_rule(rules, list, i) + " never decides: " +
                            text_of_rule(rules, list, j) + " comes before it.");
            break;
        }
}

/// Rules of the ingress about ports that only the host has.
inline void find_host_ports(const std::vector<published_port>& publish, const policy& ingress,
                            std::vector<std::string>& found) {
    for (std::size_t i = 0; i < ingress.rules().size(); ++i) {
        const traffic& about = ingress.rules()[i].about;
        if (!about.ports || about.covers_all_ports()) continue;
        const published_port* host = nullptr;
        bool inside = false;
        for (const published_port& port : publish) {
            if (about.transport != static_cast<std::uint8_t>(port.transport)) continue;
            const auto meet = [&](port_range ports) {
                return about.ports->first <= ports.last && ports.first <= about.ports->last;
            };
            inside = inside || meet(port.container);
            if (!port.picks_port() && meet(port.host)) host = &port;
        }
        if (host != nullptr && !inside)
            found.push_back("Rule " + text_of_rule(ingress, "in", i) +
                            " is about a port of the host: the container's own is meant, as in " +
                            to_string(*host) + " the last one.");
    }
}

}  // namespace detail

/// What `options` say against themselves, a sentence each; none when there is nothing.
inline std::vector<std::string> contradictions(const attach_options& options) {
    std::vector<std::string> found;
    detail::find_closed_ports(options.publish, options.ingress, found);
    detail::find_void_rules(options.ingress, "in", found);
    detail::find_void_rules(options.egress, "out", found);
    detail::find_void_rules(options.direct, "direct", found);
    detail::find_host_ports(options.publish, options.ingress, found);
    return found;
}

}  // namespace kumiki::inline v0
