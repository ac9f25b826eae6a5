#include <poll.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <random>
#include <vector>

#include <kumiki/security/seccomp_notify.hpp>

#include "security/bpf_machine.hpp"
#include "security/child.hpp"
#include "security/filtered.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::run_bpf;

namespace {

constexpr auto allow = seccomp_action::allow();
constexpr auto notify = seccomp_action::notify();

/// How strict the kernel finds an answer: of several filters the strictest counts.
int strictness(std::uint32_t answer) {
    constexpr std::array<std::uint32_t, 8> order{
        SECCOMP_RET_ALLOW, SECCOMP_RET_LOG,  SECCOMP_RET_TRACE,       SECCOMP_RET_USER_NOTIF,
        SECCOMP_RET_ERRNO, SECCOMP_RET_TRAP, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_KILL_PROCESS};
    return static_cast<int>(std::ranges::find(order, answer & SECCOMP_RET_ACTION_FULL) -
                            order.begin());
}

seccomp_data call(int number, std::array<std::uint64_t, 6> arguments = {}) {
    seccomp_data data{};
    data.nr = number;
    data.arch = detail::seccomp_architecture;
    std::ranges::copy(arguments, data.args);
    return data;
}

/// A filter with rules of every kind, and what its calls may be asked about.
struct random_filter {
    std::mt19937_64 random;

    unsigned below(unsigned n) { return static_cast<unsigned>(random() % n); }
    seccomp_action action() {
        switch (below(6)) {
        case 0:
        case 1:
            return notify;
        case 2:
            return seccomp_action::fail(static_cast<int>(below(100)));
        case 3:
            return seccomp_action::kill_process();
        case 4:
            return seccomp_action::log();
        default:
            return allow;
        }
    }
    seccomp_program make() {
        seccomp_filter filter(action(), action(), action());
        for (unsigned n = below(30); n-- > 0;) {
            std::vector<argument_condition> when;
            for (unsigned c = below(3); c-- > 0;)
                when.push_back((arg(below(6)) & (random() | 3)) == below(4));
            filter.on(static_cast<int>(below(20)), action(), std::move(when));
        }
        return filter.compile();
    }
};

}  // namespace

TEST_CASE("the two parts of a filter answer together as the whole") {
    random_filter from{std::mt19937_64(1)};
    int asked = 0;
    for (int round = 0; round < 3000; ++round) {
        const auto whole = from.make();
        const auto asking = detail::only_notifying(whole);
        const auto rest = detail::without_notifying(whole);
        CHECK_FALSE(rest.notifies());
        CHECK(asking.notifies() == whole.notifies());
        for (int i = 0; i < 40; ++i) {
            auto data = call(static_cast<int>(from.below(22)));
            for (auto& argument : data.args) argument = from.below(4);
            if (from.below(16) == 0) data.arch = 0x40000028;
            const auto want = run_bpf(whole.instructions(), data).value;
            const auto one = run_bpf(asking.instructions(), data).value;
            const auto two = run_bpf(rest.instructions(), data).value;
            CHECK((one == SECCOMP_RET_ALLOW || one == SECCOMP_RET_USER_NOTIF));
            REQUIRE((strictness(one) > strictness(two) ? one : two) == want);
            if (want == SECCOMP_RET_USER_NOTIF) ++asked;
        }
    }
    CHECK(asked > 10'000);
}

TEST_CASE("a call that a program never asks about is known, and one that it asks about, too") {
    random_filter from{std::mt19937_64(2)};
    int never = 0;
    int maybe = 0;
    for (int round = 0; round < 600; ++round) {
        const auto program = from.make();
        for (int number = 0; number < 22; ++number) {
            bool asks = false;
            for (int i = 0; i < 60 && !asks; ++i) {
                auto data = call(number);
                for (auto& argument : data.args) argument = from.below(4);
                asks = run_bpf(program.instructions(), data).value == SECCOMP_RET_USER_NOTIF;
            }
            const bool may = detail::may_notify(program, number);
            if (asks) REQUIRE(may);  // the other way round arguments decide
            (may ? maybe : never)++;
        }
    }
    CHECK(never > 1000);
    CHECK(maybe > 1000);
    // Exact where no argument decides.
    const auto plain = seccomp_filter(allow).on("mount", notify).on("read", allow).compile();
    for (const auto& entry : kumiki::detail::syscall_table)
        if (entry.number() >= 0)
            CHECK(detail::may_notify(plain, entry.number()) == (entry.name == "mount"));
}

TEST_CASE("programs of the caller's own are followed as far as they can be") {
    const auto asks = [](std::vector<sock_filter> code, int number) {
        return detail::may_notify(seccomp_program(std::move(code)), number);
    };
    const sock_filter ask{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF | 7};
    const sock_filter pass{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    const sock_filter number{BPF_LD | BPF_W | BPF_ABS, 0, 0, 0};
    CHECK(asks({ask}, 5));
    CHECK_FALSE(asks({pass, ask}, 5));
    for (const auto& [test, yes, no] :
         {std::array{BPF_JEQ, 5, 6}, {BPF_JGT, 6, 5}, {BPF_JGE, 5, 4}, {BPF_JSET, 1, 2}}) {
        const sock_filter jump{static_cast<std::uint16_t>(BPF_JMP | BPF_K | test), 0, 1, 5};
        CHECK(asks({number, jump, ask, pass}, yes));
        CHECK_FALSE(asks({number, jump, ask, pass}, no));
    }
    // Through the index register, the scratch memory or arithmetic: it may be anything.
    const sock_filter jump{BPF_JMP | BPF_K | BPF_JEQ, 0, 1, 5};
    CHECK(asks(
        {number, {BPF_MISC | BPF_TAX, 0, 0, 0}, {BPF_MISC | BPF_TXA, 0, 0, 0}, jump, ask, pass},
        6));
    CHECK(asks({number, {BPF_ST, 0, 0, 1}, {BPF_LD | BPF_MEM, 0, 0, 1}, jump, ask, pass}, 6));
    CHECK(asks({number, {BPF_ALU | BPF_ADD | BPF_K, 0, 0, 1}, jump, ask, pass}, 6));
    CHECK_FALSE(asks({{BPF_LD | BPF_IMM, 0, 0, 6}, jump, ask, pass}, 5));
    CHECK_FALSE(asks({number, {BPF_ALU | BPF_AND | BPF_K, 0, 0, 2}, jump, ask, pass}, 5));
    // What computes its answer cannot be installed with a listener: it asks nobody.
    const std::vector<sock_filter> computed{number, {BPF_RET | BPF_A, 0, 0, 0}};
    CHECK_FALSE(seccomp_program(computed).notifies());
    const auto split = detail::only_notifying(seccomp_program(computed));
    CHECK(split.instructions().back().code == (BPF_RET | BPF_K));
    CHECK(split.instructions().back().k == SECCOMP_RET_ALLOW);
    // As winding as can be: 2000 places, each reached in two ways.
    std::vector<sock_filter> winding;
    for (int i = 0; i < 1000; ++i) {
        winding.push_back({BPF_LD | BPF_W | BPF_ABS, 0, 0, 16});
        winding.push_back({BPF_JMP | BPF_K | BPF_JEQ, 0, 0, 1});
    }
    winding.push_back(pass);
    CHECK_FALSE(asks(winding, 0));
}

TEST_CASE("the listener is handed over by a call that the filter does not ask about") {
    using detail::listener_handover;
    const auto by = [](std::vector<std::string_view> names) {
        seccomp_filter filter(allow);
        for (const auto name : names) filter.on(name, notify);
        return detail::choose_handover(filter.compile());
    };
    CHECK(by({"mount", "write"}) == listener_handover::sent);
    CHECK(by({"mount", "sendmsg"}) == listener_handover::fetched);
    CHECK_THROWS_AS(by({"write", "sendmsg"}), invalid_input);
    CHECK(detail::choose_handover(
              seccomp_filter(seccomp_action::kill_process()).on("mount", notify).compile()) ==
          listener_handover::sent);
    CHECK_THROWS_AS(detail::choose_handover(seccomp_filter(notify).compile()), invalid_input);
}

TEST_CASE("a process has at most one listener, and the second is refused with the remedy") {
    kumiki_test::filtered_child child(kumiki_test::asking_getppid(), [] {
        try {
            const auto second = install_seccomp_listener(kumiki_test::asking_getppid());
        } catch (const error& failure) {
            const bool told = failure.remedy().find("at most one") != std::string::npos;
            ::_exit(failure.errno_value() == EBUSY && told ? 42 : 2);
        }
        ::_exit(1);
    });
    CHECK(child.wait() == 42);
}

TEST_CASE("without a listener a call that asks fails as if it did not exist") {
    CHECK(kumiki_test::exit_code_of([] {
              ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
              install_seccomp(kumiki_test::asking_getppid());
              ::_exit(::syscall(SYS_getppid) == -1 ? errno : 0);
          }) == ENOSYS);
    CHECK(kumiki_test::exit_code_of([] {
              ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
              install_seccomp_listener(kumiki_test::asking_getppid()).reset();
              ::_exit(::syscall(SYS_getppid) == -1 ? errno : 0);
          }) == ENOSYS);
}

TEST_CASE("instructions that the kernel does not take are refused with the reason") {
    const sock_filter pass{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    const std::vector<std::vector<sock_filter>> bad{
        {{BPF_LD | BPF_W | BPF_ABS, 0, 0, 0}},  // no end
        {{BPF_JMP | BPF_JA, 0, 0, 1}, pass},  // a jump outside
        {{BPF_JMP | BPF_K | BPF_JEQ, 0, 5, 1}, pass},
        {{BPF_LD | BPF_W | BPF_ABS, 0, 0, 64}, pass},  // a load outside
        {{BPF_LD | BPF_W | BPF_ABS, 0, 0, 2}, pass},  // not aligned
        {{BPF_LD | BPF_B | BPF_ABS, 0, 0, 0}, pass},  // of a packet's
        {{0xffff, 0, 0, 0}, pass},
    };
    for (std::size_t i = 0; i < bad.size(); ++i) {
        CAPTURE(i);
        CHECK(kumiki_test::exit_code_of([&] {
                  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                  try {
                      install_seccomp(seccomp_program(bad[i]));
                  } catch (const error& failure) {
                      const bool told =
                          failure.remedy().find("does not take these") != std::string::npos;
                      ::_exit(failure.errno_value() == EINVAL && told ? 42 : 2);
                  }
              }) == 42);
    }
}

TEST_CASE("a program of the caller's own, with all that classic BPF has, does what it says") {
    // getppid(n) is answered with errno n % 8 + 1, computed by the program.
    const auto number = static_cast<std::uint32_t>(syscall_number("getppid"));
    const seccomp_program program(std::vector<sock_filter>{
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
        {BPF_JMP | BPF_K | BPF_JEQ, 1, 0, number},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, args)},
        {BPF_ST, 0, 0, 3},
        {BPF_LDX | BPF_MEM, 0, 0, 3},
        {BPF_MISC | BPF_TXA, 0, 0, 0},
        {BPF_ALU | BPF_AND | BPF_K, 0, 0, 7},
        {BPF_ALU | BPF_ADD | BPF_K, 0, 0, 1},
        {BPF_ALU | BPF_OR | BPF_K, 0, 0, SECCOMP_RET_ERRNO},
        {BPF_RET | BPF_A, 0, 0, 0},
    });
    CHECK(kumiki_test::exit_code_of([&] {
              ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
              install_seccomp(program);
              for (int n = 0; n < 20; ++n)
                  if (::syscall(SYS_getppid, n) != -1 || errno != n % 8 + 1) ::_exit(n + 1);
          }) == 0);
}
