#include <kumiki/core/ip.hpp>
#include <kumiki/netlink/mac.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto text = text_of(data, size);
    if (const auto network = cidr::try_parse(text)) {
        require(cidr::try_parse(to_string(*network)) == network);
        require(network->contains(network->address) && network->contains(network->last()));
    }
    if (const auto address = ip_address::try_parse(text))
        require(ip_address::try_parse(to_string(*address)) == address);
    may_be_invalid([&] { (void)port_range::parse(text); });
    may_be_invalid([&] {
        const auto mac = mac_address::parse(text);
        require(mac_address::parse(to_string(mac)) == mac);
    });
    return 0;
}
