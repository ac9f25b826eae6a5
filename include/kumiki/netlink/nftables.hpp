// nftables transactions over netlink: tables, chains, sets, elements and rules, all of a batch or
// none of it, without any program's help.
//
//   nft::batch change;
//   change.add_table(mine);
//   change.add_rule(mine, "forward", "no telnet", nft::protocol_is(protocol::tcp), ...);
//   change.commit(socket);
//
// Kernel: 5.2 (nat chains in tables of the inet family). Left out: reading rules back (what is in
// the kernel is replaced, not compared), objects and flow tables.
#pragma once

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <kumiki/core/error.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/nft_action.hpp>
#include <kumiki/netlink/nft_comment.hpp>
#include <kumiki/netlink/nft_expression.hpp>
#include <kumiki/netlink/nft_set.hpp>
#include <kumiki/netlink/nft_value.hpp>
#include <kumiki/netlink/socket.hpp>

namespace kumiki::inline v0::nft {

/// A table's name: its family and its text.
struct table {
    nft::family family = nft::family::inet;
    std::string name{};
};

/// Whose a table is.
enum class owner : std::uint8_t { nobody, socket };

/// Whether what is there already is an error.
enum class only_new : bool { no, yes };

/// Where the kernel calls a base chain.
struct hook {
    const char* type = "filter";  ///< "filter", "nat" or "route"
    hook_point point = hook_point::forward;
    std::int32_t priority = 0;  ///< lower is called earlier: -300 raw, -100 dstnat, 0 filter ...
    nft::policy policy = nft::policy::accept;
};

/// The number of the ruleset's present generation; each committed transaction makes the next one.
inline std::uint32_t generation(netlink_socket& socket) {
    netlink_batch request;
    request.add(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, 0, nfgenmsg{},
                {"read nftables generation", {}});
    std::optional<std::uint32_t> number;
    socket.transact(request, [&](std::size_t, const netlink_message& answer) {
        if (const auto id = answer.attributes<nfgenmsg>().find(NFTA_GEN_ID)) number = id->be32();
    });
    if (!number) throw error(EPROTO, {.operation = "read nftables generation"});
    return *number;
}

/// What became of a batch.
enum class commit_result : std::uint8_t {
    done,
    stale,  ///< the ruleset is not of the required generation any more: nothing was done
};

/// One transaction. Each call appends a change; commit() asks the kernel for all of them at once.
///
/// Adding what exists already is no error (but for rules, which are added again).
/// Errors: invalid_input from the calls that describe; see commit().
class batch {
  public:
    batch() {
        const nfgenmsg head{AF_UNSPEC, NFNETLINK_V0, detail::to_big_endian(subsystem)};
        messages_.add(NFNL_MSG_BATCH_BEGIN, 0, head, {"change nftables rules", {}});
    }

    /// Lets commit() do nothing unless the ruleset is of this generation. To be called first.
    void require_generation(std::uint32_t number) {
        if (messages_.count() != 1)
            throw invalid_input("nftables generation", std::to_string(number),
                                "It must be required before the first change.");
        messages_.be32(NFNL_BATCH_GENID, number);
    }

    /// One that is there stays as it is, unless it is said whose it is: then it is put in force, too,
    /// where somebody has switched it off. With `owner::socket` the table is the socket's that commits
    /// it: nobody else can change it or flush it, and it goes when that is closed. Kernel: 5.12 for that.
    void add_table(const table& t, std::string_view comment = {}, std::optional<owner> whose = {}) {
        begin(NFT_MSG_NEWTABLE, NLM_F_CREATE, t, "add nftables table", t.name);
        messages_.text(NFTA_TABLE_NAME, t.name);
        constexpr std::uint32_t owned = 2;  // NFT_TABLE_F_OWNER
        if (whose) messages_.be32(NFTA_TABLE_FLAGS, *whose == owner::socket ? owned : 0);
        detail::put_nft_comment(messages_, NFTA_TABLE_USERDATA, comment);
    }
    /// With everything in it.
    void delete_table(const table& t) {
        begin(NFT_MSG_DELTABLE, 0, t, "delete nftables table", t.name);
        messages_.text(NFTA_TABLE_NAME, t.name);
    }

    /// A chain that others jump to.
    void add_chain(const table& t, std::string_view name, only_new which = only_new::no) {
        begin(NFT_MSG_NEWCHAIN, create_flags(which), t, "add nftables chain", name);
        name_chain(t, name);
    }
    /// A chain that the kernel calls.
    void add_chain(const table& t, std::string_view name, const hook& where) {
        add_chain(t, name);
        {
            const auto nest = messages_.nested(NFTA_CHAIN_HOOK);
            messages_.be32(NFTA_HOOK_HOOKNUM, static_cast<std::uint32_t>(where.point));
            messages_.be32(NFTA_HOOK_PRIORITY, static_cast<std::uint32_t>(where.priority));
        }
        messages_.be32(NFTA_CHAIN_POLICY, static_cast<std::uint32_t>(where.policy));
        messages_.text(NFTA_CHAIN_TYPE, where.type);
    }
    /// Deletes the chain's rules and leaves the chain.
    void flush_chain(const table& t, std::string_view name) {
        begin(NFT_MSG_DELRULE, 0, t, "flush nftables chain", name);
        messages_.text(NFTA_RULE_TABLE, t.name);
        messages_.text(NFTA_RULE_CHAIN, name);
    }
    /// Deletes a chain that has no rules. The kernel refuses (EBUSY) while anything jumps to it.
    void delete_chain(const table& t, std::string_view name) {
        begin(NFT_MSG_DELCHAIN, 0, t, "delete nftables chain", name);
        name_chain(t, name);
    }

    void add_set(const table& t, const set& s) {
        begin(NFT_MSG_NEWSET, NLM_F_CREATE, t, "add nftables set", s.name);
        messages_.text(NFTA_SET_TABLE, t.name);
        detail::put_nft_set(messages_, s, ++set_ids_);
    }
    /// Adds a set without a name for one rule that is added next, and is gone with it; returns what
    /// that rule's `lookup` finds it by.
    lookup add_anonymous_set(const table& t, set s, std::span<const element> elements) {
        s.name = "__set%d";  // as the kernel numbers them
        s.is_anonymous = true;
        add_set(t, s);
        change_elements(NFT_MSG_NEWSETELEM, NLM_F_CREATE, t, s, elements,
                        "add element to nftables set", detail::nft_element_form::whole, set_ids_);
        return {.set = s.name, .set_id = set_ids_};
    }
    /// Deletes a set. The kernel refuses (EBUSY) while a rule uses it.
    void delete_set(const table& t, std::string_view name) {
        begin(NFT_MSG_DELSET, 0, t, "delete nftables set", name);
        messages_.text(NFTA_SET_TABLE, t.name);
        messages_.text(NFTA_SET_NAME, name);
    }
    /// Errors at commit: EEXIST when a key is there with other data, or at all for `only_new`.
    void add_elements(const table& t, const set& s, std::span<const element> elements,
                      only_new which = only_new::no) {
        change_elements(NFT_MSG_NEWSETELEM, create_flags(which), t, s, elements,
                        "add element to nftables set", detail::nft_element_form::whole);
    }
    /// By their keys. Errors at commit: ENOENT when one is not there.
    void delete_elements(const table& t, const set& s, std::span<const element> elements) {
        change_elements(NFT_MSG_DELSETELEM, 0, t, s, elements, "delete element of nftables set",
                        detail::nft_element_form::key);
    }

    /// Appends a rule to a chain: statements are expressions, tuples (nft_match.hpp), vectors or
    /// optionals of them. `comment` may be empty.
    template <class... Statements>
    void add_rule(const table& t, std::string_view chain, std::string_view comment,
                  const Statements&... statements) {
        begin(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, t, "add rule to nftables chain", chain);
        messages_.text(NFTA_RULE_TABLE, t.name);
        messages_.text(NFTA_RULE_CHAIN, chain);
        {
            const auto list = messages_.nested(NFTA_RULE_EXPRESSIONS);
            (detail::nft_statements{messages_}.put(statements), ...);
        }
        detail::put_nft_comment(messages_, NFTA_RULE_USERDATA, comment);
    }

    /// Lets the kernel look at the changes and make none of them: the end of the transaction is left
    /// out. The errno value of the first that it would refuse, or 0. May be called once.
    int probe(netlink_socket& socket) {
        const auto failures = socket.submit(messages_);
        return failures.empty() ? 0 : failures.front().code;
    }

    /// True while nothing is to be changed.
    bool empty() const noexcept { return messages_.count() == 1; }

    /// Carries the transaction out. May be called once.
    ///
    /// Errors: kumiki::error that names the refused change, with nothing changed at all; EBUSY when
    /// what is to be deleted is in use; unsupported when this kernel has no nf_tables.
    /// Kernel: the changes are made, and visible to packets all at once, when this returns.
    commit_result commit(netlink_socket& socket) {
        if (empty()) return commit_result::done;
        const nfgenmsg tail{AF_UNSPEC, NFNETLINK_V0, detail::to_big_endian(subsystem)};
        messages_.add(NFNL_MSG_BATCH_END, 0, tail, {"commit nftables rules", {}});
        const auto failures = socket.submit(messages_);
        if (failures.empty()) return commit_result::done;
        if (failures.front().code == ERESTART) return commit_result::stale;
        refuse(to_error(messages_, failures.front()));
    }

  private:
    static constexpr std::uint16_t subsystem = NFNL_SUBSYS_NFTABLES;

    // The first change is acknowledged: its answer says that the kernel looked at the batch. The
    // others speak only when they are refused.
    void begin(int type, unsigned flags, const table& t, const char* what, std::string_view name) {
        const nfgenmsg head{static_cast<std::uint8_t>(t.family), NFNETLINK_V0, 0};
        const std::string object = name == t.name ? t.name : t.name + " " + std::string(name);
        messages_.add(static_cast<std::uint16_t>(subsystem << 8 | type),
                      flags | (messages_.count() == 1 ? NLM_F_ACK : 0U), head, {what, object});
    }
    void name_chain(const table& t, std::string_view name) {
        messages_.text(NFTA_CHAIN_TABLE, t.name);
        messages_.text(NFTA_CHAIN_NAME, name);
    }
    // A list has 64 KiB at most, so many elements take several messages.
    static constexpr unsigned create_flags(only_new which) noexcept {
        return NLM_F_CREATE | (which == only_new::yes ? NLM_F_EXCL : 0U);
    }
    void change_elements(int type, unsigned flags, const table& t, const set& s,
                         std::span<const element> elements, const char* what,
                         detail::nft_element_form form, std::uint32_t set_id = 0) {
        for (std::size_t done = 0; done < elements.size();) {
            begin(type, flags, t, what, s.name);
            messages_.text(NFTA_SET_ELEM_LIST_TABLE, t.name);
            messages_.text(NFTA_SET_ELEM_LIST_SET, s.name);
            if (set_id != 0) messages_.be32(NFTA_SET_ELEM_LIST_SET_ID, set_id);
            const std::size_t from = messages_.bytes().size();
            const auto list = messages_.nested(NFTA_SET_ELEM_LIST_ELEMENTS);
            while (done < elements.size() && messages_.bytes().size() - from < 32768)
                detail::put_nft_element(messages_, elements[done++], s.key.size(), form);
        }
    }
    [[noreturn]] static void refuse(error refused) {
        if (refused.errno_value() == EPERM)
            refused.add_context({.remedy = "It needs CAP_NET_ADMIN in the network namespace."});
        if (refused.errno_value() != EOPNOTSUPP) throw refused;
        error_context context = refused.context();
        context.remedy =
            "This kernel lacks nf_tables or a part of it (nft_nat, nft_fib_inet, "
            "nf_tables_bridge ...).";
        throw unsupported(EOPNOTSUPP, context, refused.where());
    }

    netlink_batch messages_;
    std::uint32_t set_ids_ = 0;
};

}  // namespace kumiki::inline v0::nft
