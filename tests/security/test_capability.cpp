#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <random>
#include <set>

#include <kumiki/security/capability.hpp>

#include "security/child.hpp"
#include "support/catch.hpp"

using namespace kumiki;

// Our layout and numbers are the kernel's.
static_assert(static_cast<int>(capability::chown) == CAP_CHOWN);
static_assert(static_cast<int>(capability::net_admin) == CAP_NET_ADMIN);
static_assert(static_cast<int>(capability::sys_admin) == CAP_SYS_ADMIN);
static_assert(static_cast<int>(capability::mknod) == CAP_MKNOD);
static_assert(static_cast<int>(capability::setfcap) == CAP_SETFCAP);
static_assert(static_cast<int>(capability::syslog) == CAP_SYSLOG);
static_assert(static_cast<int>(capability::checkpoint_restore) == CAP_CHECKPOINT_RESTORE);
static_assert(sizeof(capset_payload::header) == sizeof(__user_cap_header_struct));
static_assert(sizeof(capset_payload::half) == sizeof(__user_cap_data_struct));
static_assert(offsetof(capset_payload::half, inheritable) ==
              offsetof(__user_cap_data_struct, inheritable));
static_assert(capset_payload{}.head.version == _LINUX_CAPABILITY_VERSION_3);
static_assert(std::is_trivially_copyable_v<capset_payload>);
static_assert(capability_count == 41);
static_assert(default_capabilities.contains(capability::kill));
static_assert(!default_capabilities.intersects({capability::mknod, capability::net_raw,
                                                capability::sys_admin, capability::sys_ptrace,
                                                capability::audit_write}));
static_assert(default_capabilities.size() == 11);
static_assert(parse_capability("CAP_NET_ADMIN") == capability::net_admin);

TEST_CASE("every capability has its own name and is found by it in three spellings") {
    std::set<std::string_view> names;
    for (unsigned i = 0; i < capability_count; ++i) {
        const auto which = static_cast<capability>(i);
        const std::string_view name = to_string(which);
        names.insert(name);
        CHECK(parse_capability(name) == which);
        CHECK(parse_capability(name.substr(4)) == which);
        std::string lower(name.substr(4));
        for (char& c : lower) c = static_cast<char>(std::tolower(c));
        CHECK(parse_capability(lower) == which);
    }
    CHECK(names.size() == capability_count);
    CHECK(to_string(static_cast<capability>(60)) == "CAP_?");
}

TEST_CASE("an unknown capability is refused by an error that names it") {
    for (const std::string bad :
         {"", "CAP_", "CAP_CAP_CHOWN", "net_admin ", "net-admin", "chow", "chownx"}) {
        CAPTURE(bad);
        CHECK_THROWS_AS(parse_capability(bad), invalid_input);
    }
    CHECK_THROWS_AS(parse_capability(std::string_view("chown\0", 6)), invalid_input);
    CHECK_THROWS_AS(parse_capabilities("chown,"), invalid_input);
    CHECK_THROWS_AS(parse_capabilities("chown, kill"), invalid_input);
    try {
        parse_capabilities("chown,net_admn,kill");
        FAIL("accepted");
    } catch (const invalid_input& failure) {
        CHECK(failure.object() == "'net_admn'");
    }
}

TEST_CASE("a capability set behaves as a set and prints what it parses") {
    std::mt19937_64 random(1);
    for (int i = 0; i < 2000; ++i) {
        const auto a = capability_set::from_bits(random()) & capability_set::all();
        const auto b = capability_set::from_bits(random()) & capability_set::all();
        REQUIRE(((a | b) - b) == (a - b));
        REQUIRE((a | b).contains(a));
        REQUIRE((a & b).size() + (a | b).size() == a.size() + b.size());
        REQUIRE(a.intersects(b) == !(a & b).empty());
        REQUIRE(parse_capabilities(to_string(a)) == a);
    }
    CHECK(parse_capabilities("").empty());
    CHECK(parse_capabilities("all") == capability_set::all());
    CHECK(capability_set::all(0).bits() == 1);
    CHECK(capability_set::all(63).bits() == ~std::uint64_t{0});
    CHECK(to_string(capability_set::from_bits(std::uint64_t{1} << 50)) == "50");
}

TEST_CASE("random text is a capability list or a typed error") {
    std::mt19937 random(2);
    constexpr std::string_view alphabet = "chownkilCAP_,all \0x";
    for (int i = 0; i < 20'000; ++i) {
        std::string text(random() % 12, '\0');
        for (char& c : text) c = alphabet[random() % alphabet.size()];
        try {
            const auto set = parse_capabilities(text);
            REQUIRE(capability_set::all().contains(set));
        } catch (const invalid_input&) {}
    }
}

TEST_CASE("capset data is refused where the kernel would refuse it") {
    process_capabilities sets{.effective = capability::kill};
    CHECK_THROWS_AS(make_capset(sets), invalid_input);
    sets = {.permitted = capability::kill, .ambient = capability::kill};
    CHECK_THROWS_AS(make_capset(sets), invalid_input);
    sets.inheritable = capability::kill;
    CHECK_NOTHROW(make_capset(sets));
    const auto payload =
        make_capset(root_capabilities({capability::chown, capability::checkpoint_restore}));
    CHECK(payload.data[0].effective == 1);
    CHECK(payload.data[1].permitted == 1U << 8);
    CHECK(payload.data[1].inheritable == 0);
}

TEST_CASE("the bounding drops are all that is not kept, up to the kernel's last") {
    CHECK(bounding_drops(capability_set::all(), 40).empty());
    CHECK(bounding_drops({}, 40).size() == 41);
    CHECK(bounding_drops({}, 42).size() == 43);
    CHECK(bounding_drops(default_capabilities, 40).size() == 30);
    CHECK(bounding_drops(capability::kill, 5) == std::vector<std::uint8_t>{0, 1, 2, 3, 4});
}

TEST_CASE("where there is no /proc the last capability is an error that names the file") {
    if (::geteuid() != 0) KUMIKI_SKIP("needs root for chroot");
    CHECK(last_capability() >= 37);  // CAP_AUDIT_READ, 3.16
    const int code = kumiki_test::exit_code_of([] {
        if (::chroot("/proc/self/fdinfo") != 0) ::_exit(1);
        try {
            (void)last_capability();
        } catch (const error& failure) {
            const bool named = failure.object() == "/proc/sys/kernel/cap_last_cap";
            ::_exit(failure.errno_value() == ENOENT && named ? 42 : 2);
        }
    });
    CHECK(code == 42);
}

TEST_CASE("a child that applies the data has exactly the default capabilities") {
    const unsigned last = last_capability();
    const auto own = kumiki_test::status_after([] {});
    if (!own.capabilities.effective.contains(default_capabilities | capability::setpcap))
        KUMIKI_SKIP("needs root");
    const auto drops = bounding_drops(default_capabilities, last);
    const auto payload = make_capset(root_capabilities(default_capabilities));
    const auto status = kumiki_test::status_after([&] {
        for (const auto number : drops)
            if (::prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0) _exit(2);
        if (::syscall(SYS_capset, &payload.head, payload.data.data()) != 0) _exit(3);
    });
    CHECK(status.capabilities == root_capabilities(default_capabilities));

    SECTION("and one that leaves root without keeping them has none") {
        const auto other = kumiki_test::status_after([&] {
            const auto none = make_capset({});
            for (const auto number : drops)
                if (::prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0) _exit(2);
            if (::syscall(SYS_setresuid, 1000, 1000, 1000) != 0) _exit(3);
            if (::syscall(SYS_capset, &none.head, none.data.data()) != 0) _exit(4);
        });
        CHECK(other.capabilities == process_capabilities{.bounding = default_capabilities});
        CHECK(other.uid == id_quadruple{1000, 1000, 1000, 1000});
    }
    SECTION("and cannot take a dropped one back") {
        const auto more = make_capset(root_capabilities(default_capabilities | capability::mknod));
        const int code = kumiki_test::exit_code_of([&] {
            if (::syscall(SYS_capset, &payload.head, payload.data.data()) != 0) _exit(2);
            errno = 0;
            if (::syscall(SYS_capset, &more.head, more.data.data()) == 0) _exit(3);
            _exit(errno == EPERM ? 0 : 4);
        });
        CHECK(code == 0);
    }
}
