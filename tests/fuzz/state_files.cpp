#include <kumiki/network/existing_bridge.hpp>
#include <kumiki/network/forwarding.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto text = text_of(data, size);
    // What was read and is written again says the same.
    const auto forwarding = detail::forwarding_record::parse(text);
    const std::string written = forwarding.text();
    const auto again = detail::forwarding_record::parse(written);
    require(again.text() == written && again.bridges == forwarding.bridges &&
            again.ipv4 == forwarding.ipv4 && again.empty() == forwarding.empty());
    const auto bridge = detail::bridge_record::parse(text);
    const auto bridge_again = detail::bridge_record::parse(bridge.text());
    require(bridge_again.link == bridge.link && bridge_again.settings == bridge.settings &&
            bridge_again.addresses == bridge.addresses);
    // What was chosen by somebody else is taken over, or refused.
    for (const bool has_ipv6 : {false, true}) {
        bridge_options options{.name = "web"};
        if (has_ipv6) options.subnet6 = cidr::parse("::/0");
        detail::take_chosen(options, text);
        if (detail::describe(options) == text)
            may_be_invalid([&] { (void)detail::require_bridge_options(options); });
    }
    return 0;
}
