// A network of containers on a bridge: opened or made by name, shared between processes, gone with
// the last of them.
//
//   auto net = bridge_network::open({.name = "web", .subnet = "10.88.0.0/24"_cidr});
//   spec.network = net.attach({.publish = {tcp(8080, 80)}, .egress = deny_all()});
//
// The host is the gateway, with the subnet's first address on the bridge "km-web". All packets of a
// container go through the host's packet filter, those to its siblings too.
// Kernel: 5.14 (the number of the network namespace), with bridge, veth and nf_tables.
// Left out: macvlan (link_kinds.hpp).
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/link_info.hpp>
#include <kumiki/netlink/mac.hpp>
#include <kumiki/network/bridge_options.hpp>
#include <kumiki/network/explain.hpp>
#include <kumiki/network/interface_settings.hpp>
#include <kumiki/network/moved_link.hpp>
#include <kumiki/network/network_state.hpp>
#include <kumiki/network/packet.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/publish.hpp>
#include <kumiki/network/shaping.hpp>

namespace kumiki::inline v0 {

/// How a container is to be in a network.
struct attach_options {
    /// Ports of the host that lead into the container.
    std::vector<published_port> publish = {};
    /// Who may reach the published ports. It does not bind the host itself, whose processes may always
    /// use them: the host is the containers' owner.
    policy ingress = allow_all();
    /// What the container may reach.
    policy egress = allow_all();
    /// Which containers of the network may reach it by its own address, on ports that need not be
    /// published: `deny_all().allow(label{"web"}, tcp(5432))`. Their egress is asked, too.
    policy direct = deny_all();
    /// Names that it shares with others, for rules about them: 1 to 63 letters, digits, '_', '.', '-'.
    std::vector<std::string> labels = {};
    /// Its addresses; none: free ones are leased.
    std::optional<ip_address> address = {};
    std::optional<ip_address> address6 = {};
    /// Its Ethernet address; none: made from its IPv4 address.
    std::optional<mac_address> mac = {};
    /// What its interface is called inside.
    std::string interface = "eth0";
    /// How fast, late and lossy its network is.
    shaping shape = {};
    /// Settings of its interface, written before that is up.
    std::vector<interface_setting> settings = {};
    /// Who computes the checksums of what it sends.
    checksums checksum = checksums::left_out;
    /// Interfaces of the host's that it has beside its own, until it is disconnected.
    std::vector<moved_device> devices = {};
    /// Further names by which its siblings find it, in a network with names. Several containers may
    /// have the same.
    std::vector<std::string> aliases = {};
};

/// A place in a network that a container can be given: a plain value that may be copied. It keeps
/// the network open; nothing is leased or reserved yet (endpoint.hpp does that).
struct network_attachment {
    std::shared_ptr<detail::network_state> network = {};
    attach_options options = {};
};

/// A handle to an open network; copies are handles to the same.
///
/// Lifetime: the network stays open while a handle, an attachment or an endpoint of it lives.
class bridge_network {
  public:
    /// Opens the network called options.name in the calling thread's network namespace; makes it
    /// when no living process has it open.
    ///
    /// Errors: invalid_input for a bad name or subnet, and for one that overlaps a route of the
    /// host's, which is named; EEXIST when the network is open with other settings, or its bridge's
    /// name is taken by somebody else; unsupported for what the kernel lacks; kumiki::error. What
    /// was made until then is removed again.
    static bridge_network open(bridge_options options) {
        return bridge_network(std::make_shared<detail::network_state>(std::move(options)));
    }

    /// A place for one container, with nothing said of it.
    network_attachment attach() const { return attach(attach_options()); }
    /// A place for one container. Errors: invalid_input for an address outside of the network, an
    /// interface's name that cannot be, an IPv6 address in a network without IPv6, or an alias that
    /// cannot be or in a network without names.
    network_attachment attach(attach_options options) const {
        const auto require = [](const std::optional<ip_address>& address, const cidr* subnet) {
            if (address && (subnet == nullptr || !subnet->contains(*address)))
                throw invalid_input("address", to_string(*address),
                                    subnet != nullptr
                                        ? "It is not in the network " + to_string(*subnet) + "."
                                        : std::string("The network has no IPv6."));
        };
        for (const std::string& alias : options.aliases) detail::require_rule_name("alias", alias);
        if (!options.aliases.empty() && state_->options.names == name_service::off)
            throw invalid_input("alias", options.aliases.front(),
                                "The network " + name() + " has no resolver: its names are off.");
        require(options.address, &state_->options.subnet);
        require(options.address6, state_->options.subnet6 ? &*state_->options.subnet6 : nullptr);
        for (const std::string& each : options.labels) detail::require_rule_name("label", each);
        if (require_link_name(options.interface) == "lo")
            throw invalid_input("interface name", "lo", "It is the loopback interface's.");
        for (const traffic_shape* way :
             {&options.shape.to_container, &options.shape.from_container})
            require_shape(*way);
        for (const interface_setting& setting : options.settings) require_setting(setting);
        return {.network = state_, .options = std::move(options)};
    }

    /// What becomes of the first packet of a flow, by which rule, and on what way through the rules of
    /// this network and of `others`; see explain.hpp.
    ///
    /// Known are the containers that were connected through this handle and its copies. What depends
    /// on the policy of another one is told as unknown; a port that another one publishes, and its
    /// labels, are taken for none. Errors: kumiki::error when the host's addresses cannot be read.
    explanation explain(const packet& asked, std::span<const bridge_network> others = {}) const {
        std::vector<network_rules> networks{state_->rules({asked.source, asked.destination})};
        for (const bridge_network& each : others)
            if (each.state_ != state_)
                networks.push_back(each.state_->rules({asked.source, asked.destination}));
        return kumiki::explain(asked, networks, state_->host());
    }

    /// All its addresses, as the peers of a rule: `allow(net, tcp(80))`.
    operator policy_peers() const {
        address_set all{state_->options.subnet};
        if (state_->options.subnet6) all.add({*state_->options.subnet6});
        return all;
    }

    const std::string& name() const noexcept { return state_->options.name; }
    const cidr& subnet() const noexcept { return state_->options.subnet; }
    const std::optional<cidr>& subnet6() const noexcept { return state_->options.subnet6; }
    /// The host's address in the network: the containers' way out.
    ip_address gateway() const { return state_->pool4->gateway(); }
    /// The bridge, as it was when the network was opened.
    const link_info& bridge() const noexcept { return state_->bridge; }

  private:
    explicit bridge_network(std::shared_ptr<detail::network_state> state) noexcept
        : state_(std::move(state)) {}

    std::shared_ptr<detail::network_state> state_;
};

}  // namespace kumiki::inline v0
