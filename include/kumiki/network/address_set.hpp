// A set of addresses and networks of both families, as a value: what overlaps or touches is merged.
//
//   const address_set office{"192.0.2.0/25"_cidr, "192.0.2.128/25"_cidr, "2001:db8::/32"_cidr};
//
// Pure. In the kernel it is one look-up in a tree, however many ranges it has. Left out: host names.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include <kumiki/core/ip.hpp>

namespace kumiki::inline v0 {

/// Addresses from `first` to `last`, both included, of one family.
struct address_range {
    ip_address first{};
    ip_address last{};

    constexpr auto operator<=>(const address_range&) const = default;
    constexpr bool contains(const ip_address& address) const noexcept {
        return address.family() == first.family() && first <= address && address <= last;
    }
};

/// A set of addresses. Two that hold the same addresses are equal.
class address_set {
  public:
    address_set() = default;
    address_set(std::initializer_list<cidr> networks)
        : address_set(std::span(networks.begin(), networks.size())) {}
    explicit address_set(std::span<const cidr> networks) {
        for (const cidr& each : networks) ranges_.push_back({each.network(), each.last()});
        merge();
    }

    /// Adds all of `other`.
    address_set& add(const address_set& other) {
        ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
        merge();
        return *this;
    }

    bool empty() const noexcept { return ranges_.empty(); }
    /// Those of IPv4 before those of IPv6, in rising order, none next to another.
    const std::vector<address_range>& ranges() const noexcept { return ranges_; }
    bool has(ip_family family) const noexcept {
        return std::any_of(ranges_.begin(), ranges_.end(), [&](const address_range& each) {
            return each.first.family() == family;
        });
    }
    bool contains(const ip_address& address) const noexcept {
        return std::any_of(ranges_.begin(), ranges_.end(),
                           [&](const address_range& each) { return each.contains(address); });
    }
    /// True when all of `other` is in this one.
    bool contains(const address_set& other) const noexcept {
        return std::all_of(other.ranges_.begin(), other.ranges_.end(), [&](const auto& theirs) {
            return std::any_of(ranges_.begin(), ranges_.end(), [&](const address_range& each) {
                return each.contains(theirs.first) && each.contains(theirs.last);
            });
        });
    }
    bool operator==(const address_set&) const = default;

  private:
    void merge() {
        std::sort(ranges_.begin(), ranges_.end(), [](const auto& left, const auto& right) {
            if (left.first.family() != right.first.family()) return left.first.is_v4();
            return left < right;
        });
        std::vector<address_range> merged;
        for (const address_range& each : ranges_) {
            // The address behind the last of all is the first of all: nothing comes behind it.
            if (!merged.empty() && merged.back().first.family() == each.first.family() &&
                (each.first <= merged.back().last || each.first == merged.back().last.plus(1)))
                merged.back().last = std::max(merged.back().last, each.last);
            else
                merged.push_back(each);
        }
        ranges_ = std::move(merged);
    }

    std::vector<address_range> ranges_;
};

/// "192.0.2.0-192.0.2.255, 2001:db8::1".
inline std::string to_string(const address_set& set) {
    std::string text;
    for (const address_range& each : set.ranges()) {
        if (!text.empty()) text += ", ";
        text += to_string(each.first);
        if (each.last != each.first) text += "-" + to_string(each.last);
    }
    return text;
}

}  // namespace kumiki::inline v0
