#include <cstdint>
#include <random>
#include <vector>

#include <kumiki/cgroup/devices.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using may = device_access;
using enum device_kind;

namespace {

/// What a program returns for an access: an interpreter of the few instructions that there are.
bool run(const std::vector<bpf_insn>& code, device_kind kind, device_number device,
         device_access access) {
    const std::uint32_t context[] = {
        (static_cast<std::uint32_t>(access) << 16) |
            (kind == block ? static_cast<std::uint32_t>(BPF_DEVCG_DEV_BLOCK)
                           : static_cast<std::uint32_t>(BPF_DEVCG_DEV_CHAR)),
        device.major, device.minor};
    std::uint64_t r[10] = {};
    for (std::size_t at = 0;; ++at) {
        if (at >= code.size()) FAIL("the program has no end");
        const bpf_insn& now = code[at];
        std::uint64_t& to = r[now.dst_reg];
        const auto value = static_cast<std::uint32_t>(now.imm);
        switch (now.code) {
        case BPF_LDX | BPF_MEM | BPF_W:
            to = context[now.off / 4];
            break;
        case BPF_ALU64 | BPF_MOV | BPF_X:
            to = r[now.src_reg];
            break;
        case BPF_ALU64 | BPF_MOV | BPF_K:
            to = value;
            break;
        case BPF_ALU | BPF_AND | BPF_K:
            to = static_cast<std::uint32_t>(to) & value;
            break;
        case BPF_ALU | BPF_RSH | BPF_K:
            to = static_cast<std::uint32_t>(to) >> value;
            break;
        case BPF_JMP32 | BPF_JEQ | BPF_K:
            if (static_cast<std::uint32_t>(to) == value) at += static_cast<std::size_t>(now.off);
            break;
        case BPF_JMP32 | BPF_JNE | BPF_K:
            if (static_cast<std::uint32_t>(to) != value) at += static_cast<std::size_t>(now.off);
            break;
        case BPF_JMP | BPF_JA:
            at += static_cast<std::size_t>(now.off);
            break;
        case BPF_JMP | BPF_EXIT:
            return r[0] == 1;
        default:
            FAIL("an instruction that there should not be");
        }
    }
}

}  // namespace

TEST_CASE("the last rule that speaks of an access decides on it") {
    const auto list = device_list::deny_all()
                          .allow(character, 1, {})
                          .deny(character, 1, 8, may::write)
                          .allow(block, 8, 0, may::read)
                          .allow(block, 8, 0, may::write);
    CHECK(list.allows(character, {1, 3}, may::read | may::write));
    CHECK(list.allows(character, {1, 8}, may::read));
    CHECK_FALSE(list.allows(character, {1, 8}, may::read | may::write));
    CHECK_FALSE(list.allows(block, {1, 3}, may::read));
    CHECK_FALSE(list.allows(character, {10, 200}, may::read));
    // Allowed by two rules together.
    CHECK(list.allows(block, {8, 0}, may::read | may::write));
    CHECK_FALSE(list.allows(block, {8, 0}, may::mknod));
    CHECK_FALSE(list.allows(block, {8, 1}, may::read));
    CHECK(device_list::allow_all()
              .deny(any, {}, {})
              .allow(any, 1, 3)
              .allows(block, {1, 3}, may::all));
    CHECK_FALSE(device_list::allow_all().deny(any, {}, {}).allows(block, {1, 3}, may::read));
}

TEST_CASE("the default list has the harmless devices, and no disk, memory or tun") {
    const auto list = device_list::container_default();
    for (const auto& device : {device_number{1, 3},
                               {1, 5},
                               {1, 7},
                               {1, 8},
                               {1, 9},
                               {5, 0},
                               {5, 1},
                               {5, 2},
                               {136, 0},
                               {136, 77}})
        CHECK(list.allows(character, device, may::all));
    for (const auto& device :
         {device_number{1, 1}, {1, 2}, {1, 4}, {10, 200}, {10, 229}, {4, 64}}) {
        CHECK_FALSE(list.allows(character, device, may::read));
        CHECK(list.allows(character, device, may::mknod));
    }
    CHECK_FALSE(list.allows(block, {8, 0}, may::read));
    CHECK_FALSE(list.allows(block, {1, 3}, may::read));
    CHECK(list.allows(block, {8, 0}, may::mknod));
}

TEST_CASE("rules that mean nothing are refused") {
    CHECK_THROWS_AS(device_list::deny_all().allow(any, 1, 3, may::none), invalid_input);
    CHECK_THROWS_AS(device_list::deny_all().allow(any, 1, 3, static_cast<device_access>(8)),
                    invalid_input);
    CHECK_THROWS_AS(device_list::deny_all().allow(any, {}, 3), invalid_input);
    CHECK_THROWS_AS(device_list::deny_all().allow("/proc"), invalid_input);
    CHECK_THROWS_AS(device_list::deny_all().deny("/dev/kumiki-none"), error);
    CHECK(device_list::deny_all().allow("/dev/null", may::read).rules() ==
          std::vector{device_rule{true, character, 1, 3, may::read}});
}

TEST_CASE("the program says what the list says") {
    std::mt19937 random(7);
    const auto pick = [&](unsigned below) { return static_cast<std::uint32_t>(random()) % below; };
    for (int round = 0; round < 300; ++round) {
        auto list = pick(2) == 0 ? device_list::deny_all() : device_list::allow_all();
        for (unsigned rules = pick(8); rules > 0; --rules) {
            device_rule rule{.allow = pick(2) == 0,
                             .kind = static_cast<device_kind>(pick(3)),
                             .access = static_cast<device_access>(1 + pick(7))};
            if (pick(3) != 0) {
                rule.major = pick(3) == 0 ? 0xffffffffU : pick(3);
                if (pick(2) == 0) rule.minor = pick(3);
            }
            list = std::move(list).add(rule);
        }
        const auto code = list.compile();
        for (int asked = 0; asked < 20; ++asked) {
            const auto kind = pick(2) == 0 ? block : character;
            const device_number device{pick(4) == 0 ? 0xffffffffU : pick(3), pick(3)};
            const auto access = static_cast<device_access>(pick(8));
            const bool is_allowed = list.allows(kind, device, access);
            if (run(code, kind, device, access) != is_allowed) {
                CAPTURE(round, to_string(device), static_cast<int>(access));
                FAIL("the program disagrees");
            }
        }
    }
    SUCCEED();
}

TEST_CASE("more rules than a program can hold are refused") {
    auto list = device_list::deny_all();
    for (std::uint32_t minor = 0; minor < 6000; ++minor)
        list = std::move(list).allow(block, 8, minor);
    CHECK_NOTHROW(list.compile());
    for (std::uint32_t minor = 0; minor < 3000; ++minor)
        list = std::move(list).allow(block, 9, minor);
    CHECK_THROWS_AS(list.compile(), invalid_input);
}
