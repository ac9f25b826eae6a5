#include <linux/audit.h>
#include <sys/syscall.h>

#include <random>
#include <set>

#include <kumiki/security/syscall_table.hpp>

#include "support/catch.hpp"

using namespace kumiki;

static_assert(syscall_number("read") == __NR_read);
static_assert(syscall_number("fcntl") == __NR_fcntl);  // a macro of a macro on aarch64
static_assert(syscall_number("newfstatat") == __NR_newfstatat);
static_assert(syscall_number("mount_setattr") == __NR_mount_setattr);
static_assert(find_syscall("open_tree_attr") == 467);
static_assert(find_syscall("open", architecture::x86_64) == 2);
static_assert(!find_syscall("open", architecture::aarch64));
static_assert(find_syscall("mount", architecture::x86_64) == 165);
static_assert(find_syscall("mount", architecture::aarch64) == 40);
static_assert(!find_syscall("no_such_call"));
static_assert(!is_known_syscall(-1));
static_assert(audit_number(architecture::x86_64) == AUDIT_ARCH_X86_64);
static_assert(audit_number(architecture::aarch64) == AUDIT_ARCH_AARCH64);

TEST_CASE("names and numbers of system calls are one to one on each architecture") {
    const auto of = GENERATE(architecture::x86_64, architecture::aarch64);
    CAPTURE(audit_number(of));
    std::set<int> numbers;
    std::size_t here = 0;
    for (const auto& entry : detail::syscall_table) {
        const int number = entry.number(of);
        CAPTURE(entry.name);
        CHECK(is_syscall_name(entry.name));
        if (number < 0) {
            CHECK_THROWS_AS(syscall_number(entry.name, of), invalid_input);
            continue;
        }
        ++here;
        CHECK(numbers.insert(number).second);
        CHECK(find_syscall(entry.name, of) == number);
        CHECK(syscall_name(number, of) == entry.name);
        CHECK(is_known_syscall(number, of));
    }
    CHECK(here > 300);
    CHECK(detail::newest_syscall == 469);
    CHECK(syscall_name(detail::newest_syscall + 1, of).empty());
    CHECK(syscall_name(-1, of).empty());
    CHECK_FALSE(is_known_syscall(detail::newest_syscall + 1, of));
    CHECK_FALSE(is_known_syscall(400, of));
}

TEST_CASE("a name that is no system call is refused by an error that names it") {
    for (const std::string bad : {"", "Read", "read ", "sys_read", "__NR_read", "zzz", "\x7f"}) {
        CAPTURE(bad);
        CHECK_FALSE(is_syscall_name(bad));
        CHECK_THROWS_AS(syscall_number(bad), invalid_input);
    }
}
