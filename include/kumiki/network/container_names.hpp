// Which container of a network has an address, whichever process it is of: as the kernel's sets say.
//
// The elements of egress4 and egress6 have the container's name as their comment (container_rules.hpp);
// they are read again only when any of the namespace's nftables rules have changed.
// Kernel: as nft_view.hpp. Left out: the names that others are to know them by (name_table.hpp).
#pragma once

#include <cerrno>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/nft_view.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/network/owned_elements.hpp>
#include <kumiki/network/ruleset.hpp>

namespace kumiki::inline v0::detail {

/// The containers' names by their addresses, of all processes: as the elements of egress4/6 say.
class container_names {
  public:
    container_names(netlink_socket socket, const std::string& network)
        : socket_(std::move(socket)), tables_(network) {}

    /// Reads them anew when the ruleset has changed since.
    void refresh() {
        const std::uint32_t now = nft::generation(socket_);
        if (generation_ == now) return;
        std::map<std::string, std::string> names;
        for (const ip_family family : both_families)
            for (nft::element_view& each :
                 elements_of(socket_, {tables_.inet, ruleset::egress(family), family}))
                names.insert_or_assign(std::move(each.key), std::move(each.comment));
        names_ = std::move(names);
        generation_ = now;
    }
    std::string find(const ip_address& address) const {
        const auto found =
            names_.find(std::string(reinterpret_cast<const char*>(address.data()), address.size()));
        return found != names_.end() ? found->second : std::string();
    }

  private:
    netlink_socket socket_;
    ruleset tables_;
    std::optional<std::uint32_t> generation_;
    std::map<std::string, std::string> names_;  // key: the address's bytes
};

}  // namespace kumiki::inline v0::detail
