// nftables sets, maps and verdict maps, and their elements: described as values, encoded for a batch.
//
// A key may be a concatenation of fields, an element a range of keys. Backends: hash for exact keys,
// red-black tree for ranges of one field, pipapo for ranges of several (Linux 5.6, NFT_SET_CONCAT).
// Left out: time-outs, element expressions and objects, dynamic sets.
#pragma once

#include <linux/netfilter/nf_tables.h>

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/nft_comment.hpp>
#include <kumiki/netlink/nft_value.hpp>

namespace kumiki::inline v0::nft {

/// What the elements of a set are.
enum class set_kind : std::uint8_t {
    set,  ///< keys alone
    map,  ///< keys with data
    verdict_map,  ///< keys with verdicts
};

/// A set or map of a table.
struct set {
    std::string name{};
    std::vector<field> key{};  ///< more than one: concatenated
    set_kind kind = set_kind::set;
    std::vector<field> data{};  ///< of a map: more than one: concatenated
    bool ranges = false;  ///< elements are ranges of keys, that do not overlap
    /// Of one rule alone, and gone with it: see batch::add_anonymous_set().
    bool is_anonymous = false;
};

/// One element: `key`, or with `last` all from `key` to `last` (in each field of a concatenation).
struct element {
    value key{};
    std::optional<value> last{};
    std::variant<std::monostate, value, verdict> data{};
    std::string comment{};  ///< shown by `nft list`; at most 128 bytes
};

}  // namespace kumiki::inline v0::nft

namespace kumiki::inline v0::detail {

/// The fields' size together, each padded to a register when there are several.
inline std::uint32_t nft_size(const std::vector<nft::field>& fields) noexcept {
    if (fields.size() == 1) return fields.front().size;
    std::size_t size = 0;
    for (const nft::field& each : fields) size += netlink_align(each.size);
    return static_cast<std::uint32_t>(size);
}

/// libnftables' number for the concatenation: six bits a field.
inline std::uint32_t nft_type(const std::vector<nft::field>& fields) noexcept {
    std::uint32_t type = 0;
    for (const nft::field& each : fields) type = type << 6 | each.type;
    return type;
}

/// The body of NFT_MSG_NEWSET behind the table's name. `id` must differ between a batch's sets.
inline void put_nft_set(netlink_batch& into, const nft::set& set, std::uint32_t id) {
    const bool mapped = set.kind != nft::set_kind::set;
    if (set.key.empty() || (set.kind == nft::set_kind::map) == set.data.empty())
        throw invalid_input("nftables set", set.name, "A map has data, and nothing else has.");
    const bool by_field = set.ranges && set.key.size() > 1;
    into.text(NFTA_SET_NAME, set.name);
    into.be32(NFTA_SET_FLAGS,
              (mapped ? std::uint32_t{NFT_SET_MAP} : 0) |
                  (set.ranges ? std::uint32_t{NFT_SET_INTERVAL} : 0) |
                  (by_field ? std::uint32_t{NFT_SET_CONCAT} : 0) |
                  (set.is_anonymous ? std::uint32_t{NFT_SET_ANONYMOUS} | NFT_SET_CONSTANT : 0));
    into.be32(NFTA_SET_KEY_TYPE, nft_type(set.key));
    into.be32(NFTA_SET_KEY_LEN, nft_size(set.key));
    if (set.kind == nft::set_kind::map) {
        into.be32(NFTA_SET_DATA_TYPE, nft_type(set.data));
        into.be32(NFTA_SET_DATA_LEN, nft_size(set.data));
    } else if (mapped) {
        into.be32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT);
        into.be32(NFTA_SET_DATA_LEN, 0);
    }
    into.be32(NFTA_SET_ID, id);
    if (!by_field) return;
    const auto description = into.nested(NFTA_SET_DESC);
    const auto list = into.nested(NFTA_SET_DESC_CONCAT);
    for (const nft::field& each : set.key) {
        const auto entry = into.nested(NFTA_LIST_ELEM);
        into.be32(NFTA_SET_FIELD_LEN, each.size);
    }
}

/// Whether an element is put with its data (to be added) or by its key alone (to be deleted).
enum class nft_element_form : std::uint8_t { whole, key };

/// One element in an open NFTA_SET_ELEM_LIST_ELEMENTS of a set whose key has `fields` fields.
inline void put_nft_element(netlink_batch& into, const nft::element& element, std::size_t fields,
                            nft_element_form form) {
    {
        const auto entry = into.nested(NFTA_LIST_ELEM);
        put_nft_value(into, NFTA_SET_ELEM_KEY, element.key);
        if (fields > 1 && element.last) put_nft_value(into, NFTA_SET_ELEM_KEY_END, *element.last);
        if (form == nft_element_form::whole) {
            if (const auto* data = std::get_if<nft::value>(&element.data))
                put_nft_value(into, NFTA_SET_ELEM_DATA, *data);
            if (const auto* verdict = std::get_if<nft::verdict>(&element.data))
                put_nft_verdict(into, NFTA_SET_ELEM_DATA, *verdict);
            put_nft_comment(into, NFTA_SET_ELEM_USERDATA, element.comment);
        }
    }
    // The tree's ranges are two elements: the first key in it, and the first behind it.
    if (fields > 1 || !element.last) return;
    const nft::value behind = element.last->next();
    if (behind == nft::value::zero(behind.size())) return;
    const auto entry = into.nested(NFTA_LIST_ELEM);
    into.be32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
    put_nft_value(into, NFTA_SET_ELEM_KEY, behind);
}

}  // namespace kumiki::inline v0::detail
