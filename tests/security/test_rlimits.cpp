#include <sys/resource.h>

#include <fstream>
#include <random>
#include <sstream>

#include <kumiki/security/rlimits.hpp>

#include "security/child.hpp"
#include "support/catch.hpp"

using namespace kumiki;

static_assert(static_cast<int>(resource::cpu) == RLIMIT_CPU);
static_assert(static_cast<int>(resource::fsize) == RLIMIT_FSIZE);
static_assert(static_cast<int>(resource::data) == RLIMIT_DATA);
static_assert(static_cast<int>(resource::stack) == RLIMIT_STACK);
static_assert(static_cast<int>(resource::core) == RLIMIT_CORE);
static_assert(static_cast<int>(resource::rss) == RLIMIT_RSS);
static_assert(static_cast<int>(resource::nproc) == RLIMIT_NPROC);
static_assert(static_cast<int>(resource::nofile) == RLIMIT_NOFILE);
static_assert(static_cast<int>(resource::memlock) == RLIMIT_MEMLOCK);
static_assert(static_cast<int>(resource::as) == RLIMIT_AS);
static_assert(static_cast<int>(resource::locks) == RLIMIT_LOCKS);
static_assert(static_cast<int>(resource::sigpending) == RLIMIT_SIGPENDING);
static_assert(static_cast<int>(resource::msgqueue) == RLIMIT_MSGQUEUE);
static_assert(static_cast<int>(resource::nice) == RLIMIT_NICE);
static_assert(static_cast<int>(resource::rtprio) == RLIMIT_RTPRIO);
static_assert(static_cast<int>(resource::rttime) == RLIMIT_RTTIME);
static_assert(detail::resource_names.size() == RLIM_NLIMITS);
static_assert(unlimited == RLIM_INFINITY);

TEST_CASE("a limit is read as people write it") {
    CHECK(parse_resource_limit("nofile=1024:2048") == resource_limit{resource::nofile, 1024, 2048});
    CHECK(parse_resource_limit("core=0") == resource_limit{resource::core, 0, 0});
    CHECK(parse_resource_limit("nofile=1024:") ==
          resource_limit{resource::nofile, 1024, std::nullopt});
    CHECK(parse_resource_limit("memlock=unlimited") ==
          resource_limit{resource::memlock, unlimited, unlimited});
    CHECK(parse_resource_limit("stack=8192:unlimited") ==
          resource_limit{resource::stack, 8192, unlimited});
    CHECK(parse_resource_limit("as=18446744073709551614").soft == unlimited - 1);
    for (std::size_t i = 0; i < detail::resource_names.size(); ++i) {
        const auto limit = parse_resource_limit(std::string(detail::resource_names[i]) + "=1");
        CHECK(static_cast<std::size_t>(limit.which) == i);
        CHECK(to_string(limit.which) == detail::resource_names[i]);
    }
}

TEST_CASE("a malformed limit is refused") {
    for (const std::string bad : {"",
                                  "=",
                                  "nofile",
                                  "nofile=",
                                  "nofile=:",
                                  "nofile=:1",
                                  "nofile=1:2:3",
                                  "nofile=-1",
                                  "nofile= 1",
                                  "nofile=1k",
                                  "nofile=0x10",
                                  "nofile=2:1",
                                  "nofile=unlimited:1",
                                  "nofile=18446744073709551615",
                                  "nofile=18446744073709551616",
                                  "nofiles=1",
                                  "NOFILE=1",
                                  "=1",
                                  "nofile =1",
                                  "nofile=Unlimited"}) {
        CAPTURE(bad);
        CHECK_THROWS_AS(parse_resource_limit(bad), invalid_input);
    }
    try {
        (void)parse_resource_limit("nofiles=1");
    } catch (const invalid_input& failure) {
        CHECK(failure.object() == "'nofiles'");
    }
}

TEST_CASE("random text is a limit with soft within hard, or a typed error") {
    std::mt19937 random(7);
    constexpr std::string_view alphabet = "core=:0129unlimted";
    int accepted = 0;
    for (int i = 0; i < 50'000; ++i) {
        std::string text = random() % 2 == 0 ? "core=" : "";
        for (auto n = random() % 10; n-- > 0;) text += alphabet[random() % alphabet.size()];
        try {
            const auto limit = parse_resource_limit(text);
            REQUIRE((!limit.hard || limit.soft <= *limit.hard));
            ++accepted;
        } catch (const invalid_input&) {}
    }
    CHECK(accepted > 100);
}

TEST_CASE("what the child sets comes from what is wanted and what is inherited") {
    const rlimit_payload::limits current{.soft = 100, .hard = 1000};
    const auto made = [&](resource_limit wanted, bool may_raise = false) {
        const auto payload = make_rlimit(wanted, current, may_raise);
        CHECK(payload.resource == static_cast<int>(wanted.which));
        return std::pair(payload.value.soft, payload.value.hard);
    };
    CHECK(made({resource::nofile, 500, {}}) == std::pair<std::uint64_t, std::uint64_t>(500, 1000));
    CHECK(made({resource::nofile, 5000, {}}) ==
          std::pair<std::uint64_t, std::uint64_t>(1000, 1000));
    CHECK(made({resource::nofile, 5, 10}) == std::pair<std::uint64_t, std::uint64_t>(5, 10));
    CHECK(made({resource::core, 5, 2000}, true) ==
          std::pair<std::uint64_t, std::uint64_t>(5, 2000));
    CHECK_THROWS_AS(made({resource::core, 5, 2000}), unsupported);
    CHECK_THROWS_AS(made({resource::core, 5, 4}), invalid_input);
    try {
        made({resource::core, 5, 2000});
    } catch (const unsupported& failure) {
        CHECK(failure.errno_value() == EPERM);
        CHECK(failure.object() == "core");
        CHECK(failure.remedy().find("1000") != std::string::npos);
        CHECK(failure.remedy().find("CAP_SYS_RESOURCE") != std::string::npos);
    }
}

TEST_CASE("a child that applies the limits has them in /proc") {
    const auto hard = current_resource_limit(resource::nofile).value.hard;
    const std::vector<resource_limit> wanted{default_resource_limits[0],
                                             parse_resource_limit("core=4096:8192"),
                                             parse_resource_limit("core=0")};
    const auto payloads = prepare_rlimits(wanted);
    REQUIRE(payloads.size() == 2);
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const unique_fd out(ends[0]);
    unique_fd in(ends[1]);
    const int code = kumiki_test::exit_code_of([&] {
        for (const auto& payload : payloads)
            if (::syscall(SYS_prlimit64, 0, payload.resource, &payload.value, nullptr) != 0)
                ::_exit(1);
        const std::string text = sys::read_file_at(AT_FDCWD, "/proc/self/limits");
        ::_exit(::write(in.get(), text.data(), text.size()) > 0 ? 0 : 2);
    });
    in.reset();
    REQUIRE(code == 0);
    std::istringstream lines(sys::read_all(out.get(), "pipe"));
    int seen = 0;
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line.substr(line.size() < 26 ? line.size() : 26));
        std::string soft;
        std::string most;
        words >> soft >> most;
        if (line.starts_with("Max open files")) {
            CHECK(soft == std::to_string(std::min<std::uint64_t>(1024, hard)));
            CHECK(most == (hard == unlimited ? "unlimited" : std::to_string(hard)));
            ++seen;
        } else if (line.starts_with("Max core file size")) {
            CHECK(soft == "0");
            CHECK(most == "0");
            ++seen;
        }
    }
    CHECK(seen == 2);
    CHECK(prepare_rlimits({}).empty());
}

TEST_CASE("raising a hard limit without CAP_SYS_RESOURCE fails before anything is done") {
    const int code = kumiki_test::exit_code_of([] {
        const rlimit_payload::limits low{.soft = 64, .hard = 128};
        if (::syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &low, nullptr) != 0) ::_exit(1);
        if (::geteuid() == 0 && ::syscall(SYS_setresuid, 1000, 1000, 1000) != 0) ::_exit(2);
        const auto higher = parse_resource_limit("nofile=64:129");
        try {
            (void)prepare_rlimits(std::span(&higher, 1));
        } catch (const unsupported&) {
            const auto same = parse_resource_limit("nofile=64:128");
            ::_exit(prepare_rlimits(std::span(&same, 1)).size() == 1 ? 42 : 3);
        }
    });
    CHECK(code == 42);
}

TEST_CASE("a resource that the kernel does not have is an error") {
    try {
        (void)current_resource_limit(static_cast<resource>(99));
        FAIL("accepted");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == EINVAL);
        CHECK(failure.operation() == "prlimit");
    }
}
