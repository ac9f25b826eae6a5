#include <cerrno>
#include <vector>

#include <kumiki/sys/ebpf.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using enum sys::ebpf_register;

namespace {

unique_fd load(const std::vector<bpf_insn>& program, std::string_view name = "kumiki_test") {
    return sys::load_ebpf(BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE, name, program);
}

/// Why this host loads no such program; empty when it does.
std::string refused() {
    try {
        load({sys::ebpf_set(r0, 1), sys::ebpf_exit()});
        return {};
    } catch (const error& failure) {
        return failure.what();
    }
}

}  // namespace

TEST_CASE("an eBPF program is loaded under its name") {
    if (const auto why = refused(); !why.empty()) KUMIKI_SKIP(why);
    const auto program =
        load({sys::ebpf_load(r2, r1, 0), sys::ebpf_and(r2, 0xffff), sys::ebpf_shift_right(r2, 1),
              sys::ebpf_move(r0, r2), sys::ebpf_skip_if_equal(r0, 1, 1), sys::ebpf_set(r0, 0),
              sys::ebpf_skip_if_not_equal(r0, 1, 1), sys::ebpf_set(r0, 1), sys::ebpf_and(r0, 1),
              sys::ebpf_exit()});
    CHECK(sys::name_of_ebpf(program.get()) == "kumiki_test");
    CHECK(sys::name_of_ebpf(
              load({sys::ebpf_set(r0, 1), sys::ebpf_exit()}, "0123456789abcdefgh").get()) ==
          "0123456789abcde");
}

TEST_CASE("an eBPF program that the verifier refuses is an error with its name") {
    if (const auto why = refused(); !why.empty()) KUMIKI_SKIP(why);
    const auto code_of = [](const std::vector<bpf_insn>& program) {
        try {
            load(program);
        } catch (const error& failure) {
            CHECK(failure.object() == "kumiki_test");
            return failure.errno_value();
        }
        return 0;
    };
    CHECK(code_of({sys::ebpf_exit()}) == EACCES);  // r0 was never set
    CHECK(code_of({sys::ebpf_load(r0, r1, 64), sys::ebpf_exit()}) == EACCES);
    CHECK(code_of({sys::ebpf_set(r0, 2), sys::ebpf_exit()}) == EINVAL);
    CHECK(code_of({sys::ebpf_set(r0, 1)}) == EINVAL);
}

TEST_CASE("calls on what is no group and no program are errors") {
    if (const auto why = refused(); !why.empty()) KUMIKI_SKIP(why);
    const auto program = load({sys::ebpf_set(r0, 1), sys::ebpf_exit()});
    CHECK_THROWS_AS(sys::attach_ebpf(-1, program.get(), BPF_CGROUP_DEVICE), error);
    CHECK_THROWS_AS(sys::detach_ebpf(-1, program.get(), BPF_CGROUP_DEVICE), error);
    CHECK_THROWS_AS(sys::attached_ebpf(-1, BPF_CGROUP_DEVICE), error);
    CHECK_THROWS_AS(sys::name_of_ebpf(-1), error);
    CHECK_FALSE(sys::open_ebpf(0xfffffff0U));
}
