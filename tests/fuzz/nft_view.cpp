#include <kumiki/network/host_firewall.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::vector<nft::rule_view> rules;
    std::vector<nft::chain_view> chains;
    each_message(data, size, [&](const netlink_message& message) {
        may_be_malformed([&] { (void)nft::parse_event(message); });
        may_be_malformed([&] { chains.push_back(nft::parse_chain(message)); });
        may_be_malformed([&] { rules.push_back(nft::parse_rule(message)); });
        detail::parse_nft_elements(message, [](const nft::element_view& element) {
            require(element.comment.find('\0') == std::string::npos);
        });
    });
    // Rules may lead in a circle, and to chains that are not there.
    if (rules.size() > 64 || chains.size() > 64) return 0;
    for (const nft::chain_view& chain : chains) {
        const auto answer = detail::ask_chain(chain, rules, chains, "km-web");
        require(answer.is_dropped || chain.policy != nft::policy::drop);
        require(detail::chains_behind(rules, chain.name).size() <= rules.size() + 1);
    }
    return 0;
}
