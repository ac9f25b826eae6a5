// What a foreign hand did to a network: as keep_rules() tells it (rule_keeper.hpp).
//
// Pure. Left out: what the network's own processes do.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kumiki::inline v0 {

/// What became of a network by a foreign hand.
enum class drift_kind : std::uint8_t {
    table_gone,  ///< one of its tables was deleted, perhaps by `nft flush ruleset`
    rules_changed,  ///< rules or chains are not as they were made
    element_gone,  ///< what is a container's was taken out of a set
    bridge_gone,  ///< not healed: the containers are cut off
    port_gone,  ///< not healed: the host's side of a container's veth pair has left the bridge
};

/// "table_gone", as the enumerator is spelled.
constexpr std::string_view to_string(drift_kind kind) noexcept {
    constexpr std::string_view names[] = {"table_gone", "rules_changed", "element_gone",
                                          "bridge_gone", "port_gone"};
    return names[static_cast<std::size_t>(kind)];
}

/// One such event.
struct drift {
    drift_kind kind = drift_kind::table_gone;
    std::string what{};  ///< "table inet kumiki-web", "chain egress", "element of egress4"
    std::string by{};  ///< "nft (pid 4711)"; empty where the kernel does not tell
    /// From when it was noticed to when all was in order; nothing where it was not healed.
    std::optional<std::chrono::nanoseconds> healed_in{};
};

}  // namespace kumiki::inline v0
