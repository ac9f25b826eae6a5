#include <linux/netfilter/nf_tables.h>

#include <string>

#include <kumiki/netlink/nft_comment.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("A user's data that is no comment is no harm") {
    const auto comment = [](const std::string& data) {
        return std::string(detail::parse_nft_comment(
            netlink_attribute(NFTA_RULE_USERDATA, std::as_bytes(std::span(data)), 0)));
    };
    CHECK(comment(std::string("\0\4abc\0", 6)) == "abc");
    CHECK(comment(std::string("\7\1x\0\4abc\0", 9)) == "abc");
    CHECK(comment("").empty());
    CHECK(comment(std::string("\0\xff"
                              "abc",
                              5))
              .empty());
    CHECK(comment(std::string("\0", 1)).empty());
    CHECK(comment(std::string("\0\0", 2)).empty());
    CHECK(comment(std::string("\0\3abc", 5)) == "abc");  // without a NUL
    CHECK(comment(std::string("\7\0\0\2b\0", 6)) == "b");
}

TEST_CASE("A comment is read as it was written, and one that is too long is refused") {
    const auto read_back = [](const std::string& text) {
        netlink_batch batch;
        batch.add(1, 0, nlmsgerr{}, {"comment", {}});
        detail::put_nft_comment(batch, NFTA_RULE_USERDATA, text);
        auto rest = batch.bytes();
        const auto message = next_message(rest);
        const auto data = message->attributes<nlmsgerr>().find(NFTA_RULE_USERDATA);
        return data ? std::string(detail::parse_nft_comment(*data)) : "none";
    };
    CHECK(read_back("not published") == "not published");
    CHECK(read_back(std::string(128, 'x')) == std::string(128, 'x'));
    CHECK(read_back("") == "none");
    CHECK_THROWS_AS(read_back(std::string(129, 'x')), invalid_input);
}
