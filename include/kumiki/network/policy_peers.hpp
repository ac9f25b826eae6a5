// Whom a policy's rule is about: addresses, networks, sets of them, or containers of the same network
// by name or by label, those too that are connected later.
//
// Pure. Names and labels are told apart in the kernel by 64 bits of a hash; see ruleset::members().
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/network/address_set.hpp>

namespace kumiki::inline v0 {

/// Containers of the same network that were attached with this label.
struct label {
    std::string name{};

    auto operator<=>(const label&) const = default;
};

/// The container of this name in the same network.
struct container_name {
    std::string name{};

    auto operator<=>(const container_name&) const = default;
};

namespace detail {

/// 64 bits that stand for a name or a label (FNV-1a).
constexpr std::uint64_t member_number(std::string_view key) noexcept {
    std::uint64_t hash = 14695981039346656037U;
    for (const char c : key) hash = (hash ^ static_cast<std::uint8_t>(c)) * 1099511628211U;
    return hash;
}

/// Who has which names and labels in one network.
class memberships {
  public:
    void add(std::uint64_t number, const ip_address& address) {
        members_[number].push_back(address);
    }
    bool has(const std::string& key, const ip_address& address) const {
        const auto found = members_.find(member_number(key));
        return found != members_.end() && std::find(found->second.begin(), found->second.end(),
                                                    address) != found->second.end();
    }
    static std::string key(const container_name& of) { return "container " + of.name; }
    static std::string key(const label& of) { return "label " + of.name; }

  private:
    std::map<std::uint64_t, std::vector<ip_address>> members_;  // by member_number()
};

}  // namespace detail

/// The peers of a rule. The default: everybody, of both families.
class policy_peers {
  public:
    policy_peers() = default;
    policy_peers(const cidr& all) : who_(cidr{all.network(), all.prefix}) {}
    policy_peers(const ip_address& address)
        : who_(cidr{address, static_cast<std::uint8_t>(address.bits())}) {}
    policy_peers(address_set all) : who_(std::move(all)) {}
    policy_peers(label all) : who_(std::move(all)) {}
    policy_peers(container_name one) : who_(std::move(one)) {}

    bool operator==(const policy_peers&) const = default;
    bool is_everybody() const noexcept { return std::holds_alternative<std::monostate>(who_); }
    const cidr* network() const noexcept { return std::get_if<cidr>(&who_); }
    const address_set* set() const noexcept { return std::get_if<address_set>(&who_); }
    /// What detail::memberships calls the containers that are meant; nothing: no containers are.
    std::optional<std::string> member_key() const {
        if (const auto* name = std::get_if<container_name>(&who_))
            return detail::memberships::key(*name);
        if (const auto* name = std::get_if<label>(&who_)) return detail::memberships::key(*name);
        return std::nullopt;
    }
    bool contains(const ip_address& peer, const detail::memberships& members) const {
        if (is_everybody()) return true;
        if (network() != nullptr) return network()->contains(peer);
        if (set() != nullptr) return set()->contains(peer);
        return members.has(*member_key(), peer);
    }
    /// True when all that `other` means, whoever is connected, is meant here, too.
    bool covers(const policy_peers& other) const {
        if (is_everybody() || *this == other) return true;
        const auto addresses = [](const policy_peers& peers) -> std::optional<address_set> {
            if (peers.network() != nullptr) return address_set{*peers.network()};
            if (peers.set() != nullptr) return *peers.set();
            if (peers.is_everybody())
                return address_set{cidr{ip_address(), 0}, cidr::parse("::/0")};
            return std::nullopt;
        };
        const auto ours = addresses(*this);
        const auto theirs = addresses(other);
        return ours && theirs && ours->contains(*theirs);
    }

  private:
    std::variant<std::monostate, cidr, address_set, label, container_name> who_;
};

/// "everybody", "192.0.2.0/24", "container db", "label web".
inline std::string to_string(const policy_peers& peers) {
    if (peers.is_everybody()) return "everybody";
    if (peers.network() != nullptr) return to_string(*peers.network());
    if (peers.set() != nullptr) return "{" + to_string(*peers.set()) + "}";
    return *peers.member_key();
}

}  // namespace kumiki::inline v0
