#include <linux/audit.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include <array>
#include <bit>
#include <random>

#include <kumiki/security/seccomp.hpp>

#include "security/bpf_machine.hpp"
#include "security/child.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::run_bpf;

#ifdef __x86_64__
static_assert(detail::seccomp_architecture == AUDIT_ARCH_X86_64);
constexpr std::uint32_t foreign_architecture = AUDIT_ARCH_I386;
#else
static_assert(detail::seccomp_architecture == AUDIT_ARCH_AARCH64);
constexpr std::uint32_t foreign_architecture = AUDIT_ARCH_ARM;
#endif

namespace {

seccomp_data call(std::uint32_t number, std::array<std::uint64_t, 6> arguments = {}) {
    seccomp_data data{};
    data.nr = static_cast<int>(number);
    data.arch = detail::seccomp_architecture;
    std::ranges::copy(arguments, data.args);
    return data;
}

std::uint32_t answer(const seccomp_program& program, const seccomp_data& data) {
    return run_bpf(program.instructions(), data).value;
}

/// A rule as the test keeps it, apart from the filter that it is given to.
struct plain_rule {
    int number;
    seccomp_action action;
    std::vector<argument_condition> when;
};

bool holds(const argument_condition& c, const seccomp_data& data) {
    const std::uint64_t left = data.args[c.index] & c.mask;
    switch (c.test) {
    case argument_test::equal:
        return left == c.value;
    case argument_test::not_equal:
        return left != c.value;
    case argument_test::less:
        return left < c.value;
    case argument_test::less_equal:
        return left <= c.value;
    case argument_test::greater:
        return left > c.value;
    case argument_test::greater_equal:
        return left >= c.value;
    }
    return false;
}

/// What seccomp_filter promises, said in the plainest way.
std::uint32_t model(const std::vector<plain_rule>& rules, seccomp_action otherwise,
                    seccomp_action unknown, seccomp_action foreign, const seccomp_data& data,
                    architecture of = native_architecture) {
    if (data.arch != audit_number(of)) return foreign.value();
    const auto number = static_cast<std::uint32_t>(data.nr);
    if (number >= 0x40000000) return SECCOMP_RET_ERRNO | ENOSYS;
    for (const plain_rule& rule : rules)
        if (rule.number == data.nr &&
            std::ranges::all_of(rule.when, [&](const auto& c) { return holds(c, data); }))
            return rule.action.value();
    return is_known_syscall(data.nr, of) ? otherwise.value() : unknown.value();
}

struct source {
    std::mt19937_64 random;

    unsigned below(unsigned n) { return static_cast<unsigned>(random() % n); }
    /// Values at which halves, signs and carries go wrong.
    std::uint64_t value() {
        switch (below(6)) {
        case 0:
            return below(4);
        case 1:
            return 0xfffffffe + below(4);
        case 2:
            return std::uint64_t{below(3)} << 32 | below(3);
        case 3:
            return ~std::uint64_t{0} - below(3);
        case 4:
            return std::uint64_t{0x80000000} << below(33);
        default:
            return random();
        }
    }
    seccomp_action action() {
        switch (below(9)) {
        case 4:
            return seccomp_action::notify();
        case 0:
            return seccomp_action::allow();
        case 1:
            return seccomp_action::kill_process();
        case 2:
            return seccomp_action::log();
        case 3:
            return seccomp_action::trap();
        default:
            return seccomp_action::fail(static_cast<int>(below(4096)));
        }
    }
    argument_condition condition() {
        constexpr std::array<std::uint64_t, 5> masks{~0ULL, ~0ULL, 0xffffffff, 0xffffffff00000000,
                                                     0};
        return {.index = below(6),
                .mask = below(3) == 0 ? value() : masks[below(masks.size())],
                .test = static_cast<argument_test>(below(6)),
                .value = value()};
    }
    plain_rule rule(int number, unsigned most_conditions) {
        plain_rule made{number, action(), {}};
        for (unsigned n = below(most_conditions + 1); n-- > 0;) made.when.push_back(condition());
        return made;
    }
    /// A call that some rule is about, or that is just beside one, or any.
    seccomp_data probe(const std::vector<plain_rule>& rules,
                       architecture of = native_architecture) {
        auto data = call(below(8) == 0 ? static_cast<std::uint32_t>(random())
                                       : below(static_cast<unsigned>(detail::newest_syscall) + 4));
        data.arch = audit_number(of);
        for (auto& argument : data.args) argument = value();
        if (!rules.empty() && below(4) != 0) {
            const auto& rule = rules[below(static_cast<unsigned>(rules.size()))];
            data.nr = rule.number + (below(8) == 0 ? static_cast<int>(below(3)) - 1 : 0);
            for (const auto& c : rule.when)
                if (below(4) != 0)
                    data.args[c.index] =
                        c.value + below(3) - 1 + (below(4) == 0 ? std::uint64_t{1} << 32 : 0);
        }
        if (below(32) == 0) data.nr |= 0x40000000;
        if (below(64) == 0) data.nr = -1;
        if (below(32) == 0) data.arch = below(2) == 0 ? foreign_architecture : below(1U << 31);
        return data;
    }
};

}  // namespace

TEST_CASE("what the compiler emits answers as the model does for 100,000 random filters") {
    source from{std::mt19937_64(4)};
    std::size_t longest = 0;
    for (int round = 0; round < 100'000; ++round) {
        const auto of = round % 2 == 0 ? architecture::x86_64 : architecture::aarch64;
        const auto otherwise = from.action();
        const auto unknown = from.action();
        const auto foreign = from.action();
        std::vector<plain_rule> rules;
        seccomp_filter filter(otherwise, unknown, foreign, of);
        const unsigned spread = from.below(2) == 0 ? 8 : 600;  // several rules a call, or few
        for (unsigned n = from.below(24); n-- > 0;) {
            rules.push_back(from.rule(static_cast<int>(from.below(spread)), 4));
            filter.on(rules.back().number, rules.back().action, rules.back().when);
        }
        const auto program = filter.compile();
        longest = std::max(longest, program.instructions().size());
        for (int i = 0; i < 10; ++i) {
            const auto data = from.probe(rules, of);
            const auto got = answer(program, data);
            const auto want = model(rules, otherwise, unknown, foreign, data, of);
            if (got != want) {
                CAPTURE(round, data.nr, data.arch, got, want);
                REQUIRE(got == want);
            }
        }
    }
    CHECK(longest > 255);  // the long jumps were among them
}

TEST_CASE("large filters reach all of their rules over jumps longer than 255") {
    // Distances just below and above what a conditional jump reaches: all of them come up.
    source from{std::mt19937_64(5)};
    constexpr auto otherwise = seccomp_action::allow();
    constexpr auto unknown = seccomp_action::fail(ENOSYS);
    constexpr auto foreign = seccomp_action::kill_process();
    std::size_t longest = 0;
    for (int round = 0; round < 400; ++round) {
        std::vector<plain_rule> rules;
        seccomp_filter filter(otherwise, unknown, foreign);
        const int actions = 1 + static_cast<int>(from.below(3));
        for (unsigned n = 40 + from.below(260); n-- > 0;) {
            rules.push_back(from.rule(static_cast<int>(from.below(450)), 1));
            if (from.below(8) != 0)
                rules.back().action =
                    seccomp_action::fail(static_cast<int>(from.below(40)) % actions);
            filter.on(rules.back().number, rules.back().action, rules.back().when);
        }
        const auto program = filter.compile();
        longest = std::max(longest, program.instructions().size());
        for (int i = 0; i < 1500; ++i) {
            const auto data = from.probe(rules);
            const auto want = model(rules, otherwise, unknown, foreign, data);
            if (answer(program, data) != want) {
                CAPTURE(round, data.nr);
                REQUIRE(answer(program, data) == want);
            }
        }
    }
    CHECK(longest > 1000);
}

TEST_CASE("the cost of a call grows with the logarithm of the number of rules") {
    seccomp_filter filter(seccomp_action::allow());
    for (int number = 0; number < 512; number += 2) filter.on(number, seccomp_action::fail(number));
    const auto program = filter.compile();
    unsigned most = 0;
    for (std::uint32_t number = 0; number < 600; ++number)
        most = std::max(most, run_bpf(program.instructions(), call(number)).steps);
    // Up to 512 segments: 9 or 10 branches, each at most a test and a long jump; 3 before, 1 after.
    CHECK(most <= 3 + 2 * 10 + 1);
}

TEST_CASE("a filter without rules is a handful of instructions") {
    const auto program = seccomp_filter(seccomp_action::allow(), seccomp_action::allow()).compile();
    CHECK(program.instructions().size() <= 8);
    CHECK(answer(program, call(0)) == SECCOMP_RET_ALLOW);
    CHECK(answer(program, call(100'000)) == SECCOMP_RET_ALLOW);
    auto data = call(0);
    data.arch = foreign_architecture;
    CHECK(answer(program, data) == SECCOMP_RET_KILL_PROCESS);
    // Other ABIs stay shut however open the filter is.
    CHECK(answer(program, call(0x40000000)) == (SECCOMP_RET_ERRNO | ENOSYS));
    CHECK(answer(program, call(0xffffffff)) == (SECCOMP_RET_ERRNO | ENOSYS));
}

TEST_CASE("the first rule that holds decides") {
    const auto program = seccomp_filter(seccomp_action::allow())
                             .on("getpid", seccomp_action::fail(1), {arg(0) == 1, arg(1) > 2})
                             .on("getpid", seccomp_action::fail(2), {arg(0) == 1})
                             .on("getpid", seccomp_action::fail(3))
                             .on("getpid", seccomp_action::fail(4), {arg(0) == 7})
                             .compile();
    const auto number = static_cast<std::uint32_t>(syscall_number("getpid"));
    const auto fails = [&](std::uint64_t a, std::uint64_t b) {
        return answer(program, call(number, {a, b})) & SECCOMP_RET_DATA;
    };
    CHECK(fails(1, 3) == 1);
    CHECK(fails(1, 2) == 2);
    CHECK(fails(0, 3) == 3);
    CHECK(fails(7, 3) == 3);
}

TEST_CASE("a rule that comes first is tried before those that the call has") {
    seccomp_filter filter(seccomp_action::allow());
    filter.on("getpid", seccomp_action::fail(1))
        .on("getppid", seccomp_action::fail(2))
        .on_first("getpid", seccomp_action::fail(3), {arg(0) == 7})
        .on_first("getpid", seccomp_action::notify(), {arg(0) == 8})
        .on_first("gettid", seccomp_action::fail(4));
    const auto program = filter.compile();
    const auto said = [&](std::string_view name, std::uint64_t a) {
        return answer(program, call(static_cast<std::uint32_t>(syscall_number(name)), {a}));
    };
    CHECK(said("getpid", 7) == seccomp_action::fail(3).value());
    CHECK(said("getpid", 8) == SECCOMP_RET_USER_NOTIF);
    CHECK(said("getpid", 9) == seccomp_action::fail(1).value());
    CHECK(said("getppid", 7) == seccomp_action::fail(2).value());
    CHECK(said("gettid", 7) == seccomp_action::fail(4).value());
    CHECK_THROWS_AS(filter.on_first("no_such_call", seccomp_action::notify()), invalid_input);
}

TEST_CASE("a filter for another architecture has its numbers") {
    seccomp_filter filter(seccomp_action::allow(), seccomp_action::fail(ENOSYS),
                          seccomp_action::kill_process(), architecture::aarch64);
    filter.on("mount", seccomp_action::fail(EPERM));
    CHECK_THROWS_AS(filter.on("open", seccomp_action::fail(EPERM)), invalid_input);
    const auto program = filter.compile();
    auto data = call(40);
    data.arch = AUDIT_ARCH_AARCH64;
    CHECK(answer(program, data) == (SECCOMP_RET_ERRNO | EPERM));
    data.nr = 41;  // pivot_root
    CHECK(answer(program, data) == SECCOMP_RET_ALLOW);
    data.nr = 245;  // nothing there
    CHECK(answer(program, data) == (SECCOMP_RET_ERRNO | ENOSYS));
    data.arch = AUDIT_ARCH_X86_64;
    CHECK(answer(program, data) == SECCOMP_RET_KILL_PROCESS);
}

TEST_CASE("a bad rule is refused when it is given") {
    seccomp_filter filter(seccomp_action::allow());
    const auto refuse = seccomp_action::fail(EPERM);
    CHECK_THROWS_AS(filter.on("mounted", refuse), invalid_input);
    CHECK_THROWS_AS(filter.on("", refuse), invalid_input);
    CHECK_THROWS_AS(filter.on(-1, refuse), invalid_input);
    CHECK_THROWS_AS(filter.on(4096, refuse), invalid_input);
    CHECK_THROWS_AS(filter.on(0x40000000, refuse), invalid_input);
    CHECK_THROWS_AS(filter.on("mount", refuse, {argument_condition{.index = 6}}), invalid_input);
    CHECK_THROWS_AS(filter.on("mount", refuse, std::vector(17, argument_condition{})),
                    invalid_input);
    CHECK_THROWS_AS(arg(6), invalid_input);
    CHECK_THROWS_AS(seccomp_action::fail(-1), invalid_input);
    CHECK_THROWS_AS(seccomp_action::fail(4096), invalid_input);
    CHECK_NOTHROW(filter.on("mount", refuse, std::vector(16, argument_condition{})).compile());
    try {
        filter.on("mounted", refuse);
    } catch (const invalid_input& failure) {
        CHECK(failure.object() == "'mounted'");
    }
}

TEST_CASE("a program that the kernel would refuse for its length is refused before") {
    CHECK_THROWS_AS(seccomp_program({}), invalid_input);
    CHECK_THROWS_AS(seccomp_program(std::vector<sock_filter>(4097)), invalid_input);
    CHECK_NOTHROW(seccomp_program(std::vector<sock_filter>(4096)));
    seccomp_filter filter(seccomp_action::allow());
    for (int number = 0; number < 300; ++number)
        for (std::uint64_t i = 0; i < 4; ++i)
            filter.on(number, seccomp_action::fail(1), {arg(0) == i, arg(1) == 1ULL << 40});
    CHECK_THROWS_AS(filter.compile(), invalid_input);
}

TEST_CASE("the kernel answers as the model does, for calls that do not exist") {
    // Rules for number 4000 that only ever fail: nothing is done whatever the arguments are.
    constexpr int number = 4000;
    constexpr std::size_t probes = 64;
    source from{std::mt19937_64(6)};
    for (int round = 0; round < 64; ++round) {
        std::vector<plain_rule> rules;
        seccomp_filter filter(seccomp_action::allow());
        for (unsigned n = 1 + from.below(8); n-- > 0;) {
            rules.push_back(from.rule(number, 4));
            rules.back().action = seccomp_action::fail(1 + static_cast<int>(from.below(30)));
            filter.on(number, rules.back().action, rules.back().when);
        }
        const auto program = filter.compile();
        std::vector<seccomp_data> calls;
        while (calls.size() < probes) {
            calls.push_back(from.probe(rules));
            calls.back().nr = number;
            calls.back().arch = detail::seccomp_architecture;
        }
        const int wrong = kumiki_test::exit_code_of([&] {
            ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            install_seccomp(program);
            for (std::size_t i = 0; i < probes; ++i) {
                const auto& a = calls[i].args;
                errno = 0;
                ::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
                const auto got = SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(errno);
                const auto want =
                    model(rules, seccomp_action::allow(), seccomp_action::fail(ENOSYS),
                          seccomp_action::kill_process(), calls[i]);
                if (got != want) ::_exit(static_cast<int>(i) + 1);
            }
        });
        CAPTURE(round);
        REQUIRE(wrong == 0);
    }
}

TEST_CASE("each action does in the kernel what its name says") {
    const auto with = [](seccomp_action action) {
        const auto program =
            seccomp_filter(seccomp_action::allow()).on("getppid", action).compile();
        return kumiki_test::exit_code_of([&] {
            ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            install_seccomp(program);
            errno = 0;
            const auto result = ::syscall(SYS_getppid);
            ::_exit(result > 0 ? 0 : errno);
        });
    };
    CHECK(with(seccomp_action::allow()) == 0);
    CHECK(with(seccomp_action::log()) == 0);
    CHECK(with(seccomp_action::fail(EDOM)) == EDOM);
    CHECK(with(seccomp_action::kill_process()) == 128 + SIGSYS);
    CHECK(with(seccomp_action::trap()) == 128 + SIGSYS);  // nobody handles it
}

TEST_CASE("an installed filter is seen in the status of the process, and stacks") {
    const auto program = seccomp_filter(seccomp_action::allow()).compile();
    const auto status = kumiki_test::status_after([&] {
        ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        install_seccomp(program);
        install_seccomp(program);
    });
    CHECK(status.seccomp == seccomp_mode::filter);
    CHECK(status.seccomp_filters.value_or(2) == 2);
    CHECK(status.no_new_privileges);
}

TEST_CASE("without no_new_privs and privileges a filter is refused with the remedy") {
    const auto program = seccomp_filter(seccomp_action::allow()).compile();
    const int code = kumiki_test::exit_code_of([&] {
        if (::geteuid() == 0 && ::syscall(SYS_setresuid, 1000, 1000, 1000) != 0) ::_exit(1);
        try {
            install_seccomp(program);
        } catch (const error& failure) {
            const bool told = failure.remedy().find("no_new_privs") != std::string::npos;
            ::_exit(failure.errno_value() == EACCES && told ? 42 : 2);
        }
    });
    CHECK(code == 42);
}
