#include <kumiki/netlink/nflog.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    each_message(data, size, [](const netlink_message& message) {
        if (const auto packet = parse_logged_packet(message); packet && packet->head) {
            require(packet->head->between.source.family() ==
                    packet->head->between.destination.family());
            (void)to_string(packet->head->between.source);
        }
    });
    // What was captured is a stranger's.
    const auto bytes = bytes_of(data, size);
    for (const auto& head : {parse_ipv4_head(bytes), parse_ipv6_head(bytes), parse_arp_head(bytes)})
        require(!head || size >= 20);
    return 0;
}
