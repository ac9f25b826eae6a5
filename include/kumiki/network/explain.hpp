// Why a packet passes or does not: the way that a flow's first packet takes through the rules of the
// networks, its verdict, and the one rule that gives it.
//
// Pure: the same answers as the kernel's, from the same firewall_rules. A rule is called as in its
// comment in the kernel: "web:out:0" is the first rule of web's egress policy, "web:in:rest" what its
// ingress policy says to the rest, "base:CHAIN:WHY" a rule that all containers share. What depends on
// the policy of a container that others have connected, perhaps another process, is not known:
// "unknown:10.88.0.5 is leased elsewhere".
// Left out: other people's tables, what the host's routes refuse (martians, rp_filter), rates (a packet
// within its rate is meant), neighbour discovery.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/network/explanation.hpp>
#include <kumiki/network/firewall_rules.hpp>
#include <kumiki/network/host_view.hpp>
#include <kumiki/network/packet.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/publish.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// A packet on its way.
class explained_packet {
  public:
    explained_packet(const packet& asked, std::span<const network_rules> networks,
                     const host_view& host)
        : packet_(asked), networks_(networks), host_(host) {
        find_input();
    }

    explanation run() && {
        if (from_host_) {
            translate("output");
            return std::move(result_);  // the host is the containers' owner
        }
        if (!(check_sender() && check_guards())) return std::move(result_);
        translate("prerouting");
        const ip_address to = result_.led_to ? result_.led_to->address : packet_.destination;
        if (!result_.led_to && host_.has(to)) {
            check_host();
        } else if (check_egress(to)) {
            check_ingress(to);
        }
        // What is denied by a rule that is known stays denied, whatever the unknown one says.
        if (unknown_ && result_.verdict == access::allow) {
            deny("unknown:" + to_string(*unknown_) + " is leased elsewhere");
            result_.is_known = false;
        }
        return std::move(result_);
    }

  private:
    static bool is_in(const network_rules& network, const ip_address& address) {
        return std::any_of(network.options.subnets.begin(), network.options.subnets.end(),
                           [&](const cidr& subnet) { return subnet.contains(address); });
    }
    static bool is_elsewhere(const network_rules& network, const ip_address& address) {
        return std::find(network.elsewhere.begin(), network.elsewhere.end(), address) !=
               network.elsewhere.end();
    }
    static const firewall_rules* owner(const network_rules& network, const ip_address& address) {
        for (const firewall_rules& each : network.containers)
            if (std::find(each.addresses.begin(), each.addresses.end(), address) !=
                each.addresses.end())
                return &each;
        return nullptr;
    }

    // On a shared bridge: of somebody else's who is on it, for the host's own firewall to judge.
    bool is_of_neighbour(const network_rules& network) const {
        return network.options.use == bridge_use::shared && !is_in(network, packet_.source);
    }

    void find_input() {
        for (const network_rules& network : networks_) {
            if (packet_.input == network.options.bridge ||
                (packet_.input.empty() && is_elsewhere(network, packet_.source)))
                from_ = &network;
            for (const firewall_rules& each : network.containers)
                if (packet_.input.empty() ? owner(network, packet_.source) == &each
                                          : packet_.input == each.port) {
                    from_ = &network;
                    sender_ = &each;
                }
        }
        from_host_ = packet_.input == "lo" || (packet_.input.empty() && host_.has(packet_.source));
        input_ = from_ != nullptr        ? from_->options.bridge
                 : packet_.input.empty() ? host_.link_to(packet_.source)
                                         : packet_.input;
    }
    bool end(access verdict, std::string rule) {
        result_.verdict = verdict;
        result_.path.push_back(rule);
        result_.rule = std::move(rule);
        return verdict == access::allow;
    }
    bool deny(std::string rule) { return end(access::deny, std::move(rule)); }

    // The bridge's table.
    bool check_sender() {
        if (sender_ == nullptr) return true;
        result_.path.emplace_back("base:sender");
        return std::find(sender_->addresses.begin(), sender_->addresses.end(), packet_.source) !=
                   sender_->addresses.end() ||
               packet_.source == mac_of(*sender_).link_local().address ||
               deny("base:sender:not its own address");
    }
    bool check_guards() {
        for (const network_rules& network : networks_) {
            if (packet_.destination.is_loopback()) return deny("base:guard");
            if (!is_in(network, packet_.source)) continue;
            if (from_ != &network) return deny("base:guard:not from the network");
            if (network.options.use == bridge_use::shared && sender_ == nullptr &&
                !is_elsewhere(network, packet_.source))
                return deny("base:guard:not sent by a container");
        }
        return true;
    }
    // A port on the very address comes before one on all of them.
    void translate(const char* chain) {
        if (!host_.has(packet_.destination)) return;
        for (const network_rules& network : networks_)
            for (const bool exact : {true, false})
                for (const firewall_rules& each : network.containers)
                    for (const published_port& port : each.publish)
                        if (port.on_all_addresses() != exact && leads(port, each)) {
                            result_.path.push_back(std::string("base:") + chain + ":" +
                                                   to_string(port) + " to " + each.container);
                            return;
                        }
    }
    bool leads(const published_port& port, const firewall_rules& into) {
        if (static_cast<std::uint8_t>(port.transport) != packet_.transport ||
            !port.host.contains(packet_.destination_port) ||
            !port.covers(packet_.destination.family()) ||
            (!port.on_all_addresses() && *port.address != packet_.destination))
            return false;
        for (const ip_address& address : into.addresses)
            if (address.family() == packet_.destination.family()) {
                const auto offset = packet_.destination_port - port.host.first;
                result_.led_to = {address,
                                  static_cast<std::uint16_t>(port.container.first + offset)};
                return true;
            }
        return false;
    }
    bool decide(const network_rules& network, const firewall_rules& container, const char* chain,
                const policy& rules, const ip_address& peer, std::uint16_t port,
                const std::optional<std::string>& interface) {
        memberships members;
        for (const firewall_rules& each : network.containers) add_members(members, each);
        policy_question asked{
            .peer = peer, .transport = packet_.transport, .port = port, .members = &members};
        if (interface) asked.interface = *interface;
        const auto found = rules.decide(asked);
        // A rule before it may mean the peer by a label or a name, that it has elsewhere.
        const auto& all = rules.rules();
        if (is_elsewhere(network, peer) &&
            std::any_of(all.begin(),
                        all.begin() + static_cast<std::ptrdiff_t>(found.rule.value_or(all.size())),
                        [](const policy_rule& each) { return each.peers.member_key(); })) {
            unknown_ = peer;
            return true;
        }
        return end(found.verdict, rule_name(container.container, chain, found.rule));
    }
    // The host's own services, and a ping.
    void check_host() {
        if (from_ == nullptr) return;
        const auto* sender = owner(*from_, packet_.source);
        if (is_of_neighbour(*from_)) return;
        if (asks_for_names(from_->options, packet_.destination, packet_.transport,
                           packet_.destination_port)) {
            end(access::allow, "base:host:names");
            return;
        }
        if (packet_.is_echo_request() && sender != nullptr)
            decide(*from_, *sender, "out", sender->egress, packet_.destination, 0, "");  // by none
        else if (packet_.is_echo_request() && is_elsewhere(*from_, packet_.source))
            unknown_ = packet_.source;
        else
            deny("base:host:the host is not a peer");
    }
    static std::optional<std::string> if_known(std::string interface) {
        if (interface.empty()) return std::nullopt;
        return interface;
    }
    std::string output_to(const ip_address& to) const {
        for (const network_rules& network : networks_)
            if (is_in(network, to)) return network.options.bridge;
        return host_.link_to(to);
    }
    bool check_egress(const ip_address& to) {
        if (from_ == nullptr || is_of_neighbour(*from_)) return true;
        const auto* sender = owner(*from_, packet_.source);
        if (sender == nullptr) {
            if (!is_elsewhere(*from_, packet_.source))
                return deny("base:egress:not a container's address");
            unknown_ = packet_.source;
            return true;
        }
        return decide(*from_, *sender, "out", sender->egress, packet_.destination,
                      packet_.destination_port, if_known(output_to(to)));
    }
    bool check_ingress(const ip_address& to) {
        for (const network_rules& network : networks_) {
            if (!is_in(network, to)) continue;
            const auto* receiver = owner(network, to);
            if (!result_.led_to) {
                if (from_ == &network && is_elsewhere(network, to)) {
                    unknown_ = to;
                    return true;
                }
                if (from_ != &network || receiver == nullptr || receiver->direct == deny_all())
                    return deny("base:ingress:not published");
                return decide(network, *receiver, "direct", receiver->direct, packet_.source,
                              packet_.destination_port, if_known(input_));
            }
            if (receiver == nullptr) return deny("base:ingress:not a container's address");
            return decide(network, *receiver, "in", receiver->ingress, packet_.source,
                          result_.led_to->port, if_known(input_));
        }
        return true;
    }

    const packet& packet_;
    std::span<const network_rules> networks_;
    const host_view& host_;
    const network_rules* from_ = nullptr;
    const firewall_rules* sender_ = nullptr;
    std::string input_;
    bool from_host_ = false;
    std::optional<ip_address> unknown_;  // whose rules would have to be asked
    explanation result_;
};

}  // namespace detail

/// What `networks`, all of the host's, say to the first packet of a flow.
inline explanation explain(const packet& asked, std::span<const network_rules> networks,
                           const host_view& host) {
    return detail::explained_packet(asked, networks, host).run();
}

}  // namespace kumiki::inline v0
