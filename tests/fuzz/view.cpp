#include <kumiki/netlink/view.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

static void walk(const netlink_attributes& row) {
    for (const netlink_attribute& each : row) {
        (void)each.text();
        may_be_malformed([&] { (void)each.u32(); });
        may_be_malformed([&] { (void)each.address(); });
        may_be_malformed([&] { walk(each.nested()); });
    }
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    each_message(data, size,
                 [](const netlink_message& message) { walk(message.attributes<std::uint32_t>()); });
    // What the kernel says of a request that it refused.
    each_message(data, size, [](const netlink_message& message) {
        netlink_batch batch;
        batch.add(16, 0, std::uint32_t{0}, {"fuzz", "it"});
        batch.u32(1, 2);
        batch.number(1);
        (void)detail::explain_refusal(message, batch);
    });
    return 0;
}
