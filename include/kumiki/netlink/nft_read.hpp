// Elements of nftables sets read back by their keys: whether they are there, with what data, and whose.
//
// NFT_MSG_GETSETELEM with a key, Linux 4.15. Left out: lists of all elements, rules, chains.
#pragma once

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/nft_comment.hpp>
#include <kumiki/netlink/nft_set.hpp>
#include <kumiki/netlink/nftables.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki::inline v0::nft {

/// An element as the kernel has it.
struct found_element {
    std::vector<std::byte> data{};  ///< of a map: as value::bytes()
    std::string comment{};
};

}  // namespace kumiki::inline v0::nft

namespace kumiki::inline v0::detail {

/// The one element of an answer. Errors: EBADMSG.
inline nft::found_element parse_nft_element(const netlink_message& answer) {
    nft::found_element found;
    const auto list = answer.attributes<nfgenmsg>().find(NFTA_SET_ELEM_LIST_ELEMENTS);
    if (!list) return found;
    for (const netlink_attribute& entry : list->nested())
        for (const netlink_attribute& part : entry.nested()) {
            if (part.type() == NFTA_SET_ELEM_DATA)
                if (const auto value = part.nested().find(NFTA_DATA_VALUE))
                    found.data.assign(value->payload().begin(), value->payload().end());
            if (part.type() == NFTA_SET_ELEM_USERDATA) found.comment = parse_nft_comment(part);
        }
    return found;
}

}  // namespace kumiki::inline v0::detail

namespace kumiki::inline v0::nft {

/// What is in the kernel under the keys of `wanted`, one by one: nothing where there is no such
/// element, or no such set or table. Errors: kumiki::error.
inline std::vector<std::optional<found_element>> read_elements(netlink_socket& socket,
                                                               const table& t, const set& s,
                                                               std::span<const element> wanted) {
    constexpr std::size_t at_once = 256;
    std::vector<std::optional<found_element>> all(wanted.size());
    for (std::size_t from = 0; from < wanted.size(); from += at_once) {
        netlink_batch request;
        for (const element& each : wanted.subspan(from, std::min(at_once, wanted.size() - from))) {
            request.add(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETSETELEM, 0,
                        nfgenmsg{static_cast<std::uint8_t>(t.family), NFNETLINK_V0, 0},
                        {"read element of nftables set", t.name + " " + s.name});
            request.text(NFTA_SET_ELEM_LIST_TABLE, t.name);
            request.text(NFTA_SET_ELEM_LIST_SET, s.name);
            const auto list = request.nested(NFTA_SET_ELEM_LIST_ELEMENTS);
            detail::put_nft_element(request, each, s.key.size(), detail::nft_element_form::key);
        }
        const auto failures =
            socket.submit(request, [&](std::size_t index, const netlink_message& answer) {
                all[from + index] = detail::parse_nft_element(answer);
            });
        for (const netlink_failure& failure : failures)
            if (failure.code != ENOENT) throw to_error(request, failure);
    }
    return all;
}

}  // namespace kumiki::inline v0::nft
