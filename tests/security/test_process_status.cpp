#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <random>

#include <kumiki/security/process_status.hpp>

#include "security/child.hpp"
#include "support/catch.hpp"

using namespace kumiki;

namespace {

constexpr std::string_view sample =
    "Name:\tbusy box\\n\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t42\nNgid:\t0\nPid:\t42\n"
    "PPid:\t1\nTracerPid:\t0\nUid:\t1000\t1001\t1002\t4294967294\nGid:\t5\t6\t7\t8\n"
    "FDSize:\t64\nGroups:\t4 24 4294967294 \nNStgid:\t42\t1\nNSpid:\t42\t1\nVmPeak:\t  100 kB\n"
    "CapInh:\t0000000000000001\nCapPrm:\t00000000a80425fb\nCapEff:\t0000000000000002\n"
    "CapBnd:\t000001ffffffffff\nCapAmb:\t8000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
    "Seccomp_filters:\t3\nSpeculation_Store_Bypass:\tthread vulnerable\n";

std::string without(std::string_view key) {
    std::string text(sample);
    const auto at = text.find("\n" + std::string(key) + ":") + 1;
    return text.erase(at, text.find('\n', at) - at + 1);
}

std::string with(std::string_view key, std::string_view value) {
    return without(key) + std::string(key) + ":\t" + std::string(value) + "\n";
}

}  // namespace

TEST_CASE("a status text is read in full") {
    const auto status = parse_process_status(sample);
    CHECK(status.name == "busy box\\n");
    CHECK(status.state == 'S');
    CHECK(status.pid == 42);
    CHECK(status.parent == 1);
    CHECK(status.uid == id_quadruple{1000, 1001, 1002, 4294967294});
    CHECK(status.gid == id_quadruple{5, 6, 7, 8});
    CHECK(status.groups == std::vector<std::uint32_t>{4, 24, 4294967294});
    CHECK(status.namespace_pids == std::vector<pid_t>{42, 1});
    CHECK(status.capabilities.inheritable == capability::chown);
    CHECK(status.capabilities.permitted.bits() == 0xa80425fb);
    CHECK(status.capabilities.effective == capability::dac_override);
    CHECK(status.capabilities.bounding == capability_set::all());
    CHECK(status.capabilities.ambient.bits() == std::uint64_t{1} << 63);
    CHECK(status.no_new_privileges);
    CHECK(status.seccomp == seccomp_mode::filter);
    CHECK(status.seccomp_filters == 3U);
}

TEST_CASE("a missing, double or malformed line of the status is an error and not a default") {
    for (const auto* key : {"State", "Pid", "PPid", "Uid", "Gid", "CapInh", "CapPrm", "CapEff",
                            "CapBnd", "CapAmb", "NoNewPrivs"}) {
        CAPTURE(key);
        CHECK_THROWS_AS(parse_process_status(without(key)), invalid_input);
        CHECK_THROWS_AS(parse_process_status(with(key, "")), invalid_input);
        CHECK_THROWS_AS(parse_process_status(std::string(sample) + key + ":\t0\n"), invalid_input);
    }
    CHECK_THROWS_AS(parse_process_status(with("Uid", "0 0 0")), invalid_input);
    CHECK_THROWS_AS(parse_process_status(with("Uid", "0 0 0 0 0")), invalid_input);
    CHECK_THROWS_AS(parse_process_status(with("Uid", "0 0 0 4294967296")), invalid_input);
    CHECK_THROWS_AS(parse_process_status(with("Gid", "-1 0 0 0")), invalid_input);
    CHECK_THROWS_AS(parse_process_status(with("CapEff", "10000000000000000")), invalid_input);
    CHECK_THROWS_AS(parse_process_status(with("CapEff", "0x1")), invalid_input);
    CHECK_THROWS_AS(parse_process_status(with("NoNewPrivs", "2")), invalid_input);
    CHECK_THROWS_AS(parse_process_status(with("Seccomp", "3")), invalid_input);
    CHECK_THROWS_AS(parse_process_status(with("Groups", "4 x")), invalid_input);
    CHECK_THROWS_AS(parse_process_status("no colon\n"), invalid_input);
    CHECK_THROWS_AS(parse_process_status(""), invalid_input);
    CHECK(parse_process_status(without("Seccomp_filters")).seccomp_filters == std::nullopt);
}

TEST_CASE("a status text that was damaged anywhere is a value or a typed error") {
    std::mt19937 random(3);
    for (int i = 0; i < 20'000; ++i) {
        std::string text(sample);
        for (auto n = random() % 4; n-- > 0;)
            text[random() % text.size()] = static_cast<char>(random());
        if (random() % 4 == 0) text.resize(random() % text.size());
        try {
            (void)parse_process_status(text);
        } catch (const invalid_input&) {}
    }
    CHECK_NOTHROW(parse_process_status(sample));
}

TEST_CASE("the status of a child shows what it did to itself") {
    const auto before = kumiki_test::status_after([] {});
    CHECK(before.parent == ::getpid());
    CHECK(before.seccomp == seccomp_mode::disabled);
    const bool root = ::geteuid() == 0;
    const auto status = kumiki_test::status_after([&] {
        ::prctl(PR_SET_NAME, "a b\nc");
        ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        const gid_t groups[] = {7, 100'000};
        if (root &&
            (::setgroups(2, groups) != 0 || ::setresgid(1, 2, 3) != 0 || ::setresuid(4, 5, 6) != 0))
            ::_exit(1);
    });
    CHECK(status.name == "a b\\nc");
    CHECK(status.no_new_privileges);
    if (root) {
        CHECK(status.groups == std::vector<std::uint32_t>{7, 100'000});
        CHECK(status.gid == id_quadruple{1, 2, 3, 2});
        CHECK(status.uid == id_quadruple{4, 5, 6, 5});
    }
}

TEST_CASE("no such process is no status, and a wrong procfs is an error") {
    CHECK(read_process_status(0x3fffffff) == std::nullopt);
    const unique_fd procfs(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(read_process_status(::getpid(), procfs.get()).has_value());
    CHECK(read_process_status(::getpid(), procfs.get())->pid == ::getpid());
    CHECK_THROWS_AS(read_process_status(::getpid(), 100'000), error);
}
