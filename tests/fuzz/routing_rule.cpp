#include <kumiki/netlink/routing_rule.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    each_message(data, size, [](const netlink_message& message) {
        const auto rule = parse_rule(message);
        if (!rule) return;
        (void)to_string(*rule);
        // What the kernel shows can be asked for.
        may_be_invalid([&] {
            netlink_batch batch;
            delete_rule(batch, *rule);
        });
    });
    return 0;
}
