#include <cstring>

#include <kumiki/netlink/view.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

// The seeds are answers to these: what a socket numbers from 1 on.
static netlink_batch numbered_requests() {
    netlink_batch batch;
    for (const char* const object : {"first", "second"}) {
        batch.add(16, NLM_F_ACK, std::uint32_t{0}, {"fuzz", object, "fuzz_module"});
        batch.u32(1, 2);
        const auto nest = batch.nested(18);
        batch.text(1, "veth");
    }
    batch.number(1);
    return batch;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const netlink_batch batch = numbered_requests();
    each_message(data, size, [](const netlink_message& message) {
        const std::string text = detail::explain_refusal(message, batch);
        require(text.find('\0') == std::string::npos);
        const std::size_t index = message.header.nlmsg_seq - std::size_t{1};
        if (index >= batch.count()) return;
        const auto code = detail::read_structure<std::int32_t>(message.payload);
        if (!code || *code >= 0 || *code < -4095) return;
        const error made = to_error(batch, {index, -*code, text});
        require(made.errno_value() == -*code && made.remedy().starts_with(text));
    });
    return 0;
}
