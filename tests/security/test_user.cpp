#include <random>

#include <kumiki/security/user.hpp>

#include "support/catch.hpp"

using namespace kumiki;

static_assert(!std::is_default_constructible_v<user_id>);
static_assert(!std::is_default_constructible_v<process_user>);
static_assert(!std::is_convertible_v<user_id, group_id>);
static_assert(user_id(1000).value() == 1000);

namespace {

constexpr std::string_view passwd =
    "root:x:0:0:root:/root:/bin/sh\n"
    "# a comment: with: colons\n"
    "www-data:x:33:33:www:/var/www:/usr/sbin/nologin\n"
    "alice:x:1000:1000::/home/alice:/bin/sh\n"
    "alice:x:0:0:a second one:/root:/bin/sh\n"
    "1001:x:0:0:a number as a name:/root:/bin/sh\n"
    "+::::::\n"
    "short:x:5\n"
    "huge:x:4294967296:0::/:/bin/sh\n"
    "minus:x:-1:0::/:/bin/sh\n"
    "none:x:4294967295:0::/:/bin/sh\n"
    "nogid:x:7:::/:/bin/sh\n"
    ":x:8:8::/:/bin/sh\n"
    "relative:x:9:9::home:/bin/sh\n"
    "last:x:10:11::/home/last:/bin/sh";

constexpr std::string_view group_file =
    "root:x:0:\n"
    "adm:x:4:alice,bob\n"
    "sudo:x:27:alicex,xalice, alice\n"
    "video:x:44:bob,alice,alice\n"
    "alice:x:1000:alice\n"
    "adm:x:99:alice\n"
    "bad:x:4294967295:alice\n"
    "wheel:x:x:alice\n"
    "users:x:100:";

resolved_user resolve(std::string_view text, std::string_view p = passwd,
                      std::string_view g = group_file) {
    return resolve_user(parse_user(text), p, g);
}

}  // namespace

TEST_CASE("an id is a number in range or an error, and never root by default") {
    CHECK_THROWS_AS(user_id(-1), invalid_input);
    CHECK_THROWS_AS(user_id(4294967295U), invalid_input);
    CHECK_THROWS_AS(user_id(std::uint64_t{1} << 32), invalid_input);
    CHECK_THROWS_AS(group_id(-1L), invalid_input);
    CHECK(user_id(4294967294U).value() == 4294967294U);
    const process_user user{1000, 1001};
    CHECK(user.user.value() == 1000);
    CHECK(user.group.value() == 1001);
    CHECK(user.groups.empty());
}

TEST_CASE("what user[:group] says is read, and printed ids are read back as they were") {
    for (const std::uint32_t id : {0U, 1U, 9U, 10U, 999U, 1000U, 65534U, 65535U, 65536U,
                                   2147483647U, 2147483648U, 4294967294U}) {
        const auto request = parse_user(std::to_string(id) + ":" + std::to_string(id));
        CHECK(std::get<user_id>(request.user).value() == id);
        CHECK(std::get<group_id>(request.group.value()).value() == id);
    }
    CHECK(std::get<std::string>(parse_user("www-data").user) == "www-data");
    CHECK_FALSE(parse_user("www-data").group);
    CHECK(std::get<std::string>(parse_user("0:users").group.value()) == "users");
    CHECK(std::get<std::string>(parse_user("_x.y$").user) == "_x.y$");
}

TEST_CASE("a malformed user is refused") {
    for (const std::string bad : {"",           ":",
                                  "1:",         ":1",
                                  "1:2:3",      "-1",
                                  "+1",         " 1",
                                  "1 ",         "1\n",
                                  "0x10",       "1e3",
                                  "1000a",      "4294967295",
                                  "4294967296", "99999999999999999999",
                                  "0:-1",       "0:4294967295",
                                  "a b",        "a/b",
                                  "a$b",        "$",
                                  "-x",         ".",
                                  "..",         "\xc3\xbc",
                                  "root\n:0"}) {
        CAPTURE(bad);
        CHECK_THROWS_AS(parse_user(bad), invalid_input);
    }
    CHECK_THROWS_AS(parse_user(std::string_view("root\0", 5)), invalid_input);
    CHECK_THROWS_AS(parse_user(std::string(257, 'a')), invalid_input);
}

TEST_CASE("names are found in the container's files") {
    const auto web = resolve("www-data");
    CHECK(web.ids == process_user{33, 33});
    CHECK(web.name == "www-data");
    CHECK(web.home == "/var/www");
    CHECK(resolve("alice").ids == process_user{1000, 1000, {4, 44, 99}});
    CHECK(resolve("1000").ids == resolve("alice").ids);
    CHECK(resolve("alice:users").ids == process_user{1000, 100});
    CHECK(resolve("alice:5").ids == process_user{1000, 5});
    CHECK(resolve("0:adm").ids == process_user{0, 4});
    CHECK(resolve("last").ids == process_user{10, 11});
    CHECK(resolve("last").home == "/home/last");
    CHECK(resolve("relative").home.empty());
}

TEST_CASE("a number stays that number whatever the image's files say") {
    CHECK(resolve("1001").ids == process_user{1001, 1001});
    CHECK(resolve("1001").name.empty());
    CHECK(resolve("1001", "", "").ids == process_user{1001, 1001});
    CHECK(resolve("5:6", "", "").ids == process_user{5, 6});
    CHECK(resolve("0", "", "").ids == process_user{0, 0});
}

TEST_CASE("entries that are malformed are not there") {
    for (const auto* name :
         {"short", "huge", "minus", "none", "nogid", "nobody", "x", "alic", "alicee", "Alice"}) {
        CAPTURE(name);
        CHECK_THROWS_AS(resolve(name), invalid_input);
    }
    for (const auto* name : {"0:bad", "0:wheel", "0:nogroup", "0:roo"}) {
        CAPTURE(name);
        CHECK_THROWS_AS(resolve(name), invalid_input);
    }
    CHECK_THROWS_AS(resolve("root", std::string_view("root\0:x:0:0::/:/\n", 18)), invalid_input);
    try {
        resolve("nobody");
    } catch (const invalid_input& failure) {
        CHECK(failure.object() == "'nobody'");
        CHECK(failure.remedy().find("/etc/passwd") != std::string::npos);
    }
}

TEST_CASE("files without bounds are refused, and supplementary groups end at the kernel's limit") {
    const std::string large((std::size_t{4} << 20) + 1, '\n');
    CHECK_THROWS_AS(resolve("1", large, ""), invalid_input);
    CHECK_THROWS_AS(resolve("1", "", large), invalid_input);
    std::string many;
    for (std::uint32_t id = 1; id < 70'000; ++id)
        many += "g:x:" + std::to_string(id + 1) + ":last\n";
    CHECK(resolve("last", passwd, many).ids.groups.size() + 1 >= most_groups);
    CHECK(resolve("last", passwd, many).ids.groups.size() <= most_groups);
}

TEST_CASE("random files and requests give ids that stand in them, or a typed error") {
    std::mt19937 random(8);
    constexpr std::string_view alphabet = "ab0149:::,\n\n-x";
    const auto text = [&](unsigned most) {
        std::string made;
        for (auto n = random() % most; n-- > 0;) made += alphabet[random() % alphabet.size()];
        return made;
    };
    const auto damaged = [&](std::string_view whole) {
        std::string made(whole);
        for (auto n = random() % 6; n-- > 0;)
            made[random() % made.size()] = alphabet[random() % alphabet.size()];
        return made;
    };
    int resolved = 0;
    for (int i = 0; i < 20'000; ++i) {
        const std::string users = random() % 2 == 0 ? text(200) : damaged(passwd);
        const std::string groups = random() % 2 == 0 ? text(200) : damaged(group_file);
        const std::string who = random() % 2 == 0 ? text(6) : "alice";
        try {
            const auto user = resolve(who, users, groups);
            ++resolved;
            if (who == "alice") REQUIRE(users.find("alice:") != std::string::npos);
            for (const auto id : user.ids.groups) REQUIRE(id != user.ids.group);
            REQUIRE(std::ranges::is_sorted(user.ids.groups));
        } catch (const invalid_input&) {}
    }
    CHECK(resolved > 1000);
}
