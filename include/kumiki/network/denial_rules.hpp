// The rules that end a packet's way: in one place, so that all of them count alike.
//
// Pure. Kernel: 5.2.
#pragma once

#include <string_view>

#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nftables.hpp>

namespace kumiki::inline v0::detail {

/// Counts and drops what matches; `why` is the rule's comment, empty for none.
template <class... Matches>
void put_denial(nft::batch& change, const nft::table& table, const char* chain,
                std::string_view why, const Matches&... matches) {
    change.add_rule(table, chain, why, matches..., nft::counter{}, nft::decide{nft::drop()});
}

}  // namespace kumiki::inline v0::detail
