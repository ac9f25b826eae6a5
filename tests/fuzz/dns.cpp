#include <kumiki/network/dns_message.hpp>
#include <kumiki/network/dns_reply.hpp>
#include <kumiki/network/name_answers.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto message = bytes_of(data, size);
    static const name_table names(
        {{ip_address(std::array<std::uint8_t, 4>{10, 88, 0, 2}), 0, 7, "web"},
         {ip_address(std::array<std::uint8_t, 4>{10, 88, 0, 2}), 1, 7, "db"}});
    static const detail::name_zone zone{.subnets = {cidr::parse("10.88.0.0/24")},
                                        .domain = "shop.internal"};
    const auto query = parse_dns_query(message);
    if (!query) return 0;
    require(query->end <= size && query->labels <= 127);
    const auto sender = ip_address::parse("10.88.0.2");
    for (const std::size_t limit : {dns_reply::limit_for(*query), std::size_t{65535}}) {
        const auto answer = detail::own_answer(zone, names, message, *query, sender, limit);
        if (!answer) continue;
        require(answer->size() <= limit && answer->size() >= 12);
        // An answer is never taken for a question, and it is one to this question.
        require(!parse_dns_query(*answer));
        if (query->problem == dns_code::no_error) require(answers(*answer, query->id, *query));
    }
    return 0;
}
