// eBPF as far as programs on control groups need it: instructions as constexpr functions, loading,
// attaching, replacing and listing. Ten registers of 64 bits; r1 holds the context at the start, r0
// what the program returns.
//
// Kernel: bpf(2); on groups 4.10, several on one group and their listing 4.15, BPF_F_REPLACE 5.6.
// It takes CAP_BPF (CAP_SYS_ADMIN before 5.8), and CAP_NET_ADMIN for attaching.
// Left out: maps, calls, BTF, links.
#pragma once

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::sys {

/// One of the registers r0 to r9.
enum class ebpf_register : std::uint8_t { r0, r1, r2, r3, r4, r5, r6, r7, r8, r9 };

namespace detail {

constexpr bpf_insn ebpf_instruction(unsigned code, ebpf_register to, ebpf_register from,
                                    std::int16_t offset, std::int32_t value) noexcept {
    bpf_insn made{};
    made.code = static_cast<std::uint8_t>(code);
    made.dst_reg = static_cast<std::uint8_t>(to) & 0xfU;
    made.src_reg = static_cast<std::uint8_t>(from) & 0xfU;
    made.off = offset;
    made.imm = value;
    return made;
}

}  // namespace detail

/// `to` = the 32-bit word at `offset` of what `from` points to.
constexpr bpf_insn ebpf_load(ebpf_register to, ebpf_register from, std::int16_t offset) noexcept {
    return detail::ebpf_instruction(BPF_LDX | BPF_MEM | BPF_W, to, from, offset, 0);
}
/// `to` = `from`.
constexpr bpf_insn ebpf_move(ebpf_register to, ebpf_register from) noexcept {
    return detail::ebpf_instruction(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0);
}
/// `to` = `value`.
constexpr bpf_insn ebpf_set(ebpf_register to, std::int32_t value) noexcept {
    return detail::ebpf_instruction(BPF_ALU64 | BPF_MOV | BPF_K, to, {}, 0, value);
}
/// The low 32 bits of `to` &= `value`; the high ones become 0.
constexpr bpf_insn ebpf_and(ebpf_register to, std::int32_t value) noexcept {
    return detail::ebpf_instruction(BPF_ALU | BPF_AND | BPF_K, to, {}, 0, value);
}
/// The low 32 bits of `to` >>= `bits`; the high ones become 0.
constexpr bpf_insn ebpf_shift_right(ebpf_register to, std::int32_t bits) noexcept {
    return detail::ebpf_instruction(BPF_ALU | BPF_RSH | BPF_K, to, {}, 0, bits);
}
/// Skips `count` instructions when the low 32 bits of `of` are `value`. Kernel: 5.1.
constexpr bpf_insn ebpf_skip_if_equal(ebpf_register of, std::uint32_t value,
                                      std::int16_t count) noexcept {
    return detail::ebpf_instruction(BPF_JMP32 | BPF_JEQ | BPF_K, of, {}, count,
                                    static_cast<std::int32_t>(value));
}
/// Skips `count` instructions when the low 32 bits of `of` are not `value`. Kernel: 5.1.
constexpr bpf_insn ebpf_skip_if_not_equal(ebpf_register of, std::uint32_t value,
                                          std::int16_t count) noexcept {
    return detail::ebpf_instruction(BPF_JMP32 | BPF_JNE | BPF_K, of, {}, count,
                                    static_cast<std::int32_t>(value));
}
/// Skips `count` instructions.
constexpr bpf_insn ebpf_skip(std::int16_t count) noexcept {
    return detail::ebpf_instruction(BPF_JMP | BPF_JA, {}, {}, count, 0);
}
/// Ends the program; r0 is its result.
constexpr bpf_insn ebpf_exit() noexcept {
    return detail::ebpf_instruction(BPF_JMP | BPF_EXIT, {}, {}, 0, 0);
}

namespace detail {

/// The argument of bpf(2), and room behind it: 6.17 to 7.1 answer BPF_PROG_QUERY with fields that
/// lie behind what an older caller passed.
union ebpf_request {
    bpf_attr attributes;
    char room[256];
    ebpf_request() noexcept { std::memset(this, 0, sizeof *this); }
};
static_assert(sizeof(ebpf_request) == 256);

inline int call_bpf(bpf_cmd command, ebpf_request& request) noexcept {
    return retry([&] {
        return static_cast<int>(
            ::syscall(SYS_bpf, command, &request, static_cast<unsigned>(sizeof request)));
    });
}
inline std::uint64_t ebpf_pointer(const void* to) noexcept {
    return reinterpret_cast<std::uintptr_t>(to);
}

}  // namespace detail

/// Loads a program for `attach_as`; `name` has at most 15 letters, digits, '_' and '.'.
/// Errors: EPERM without CAP_BPF; EACCES and EINVAL for a program that the verifier refuses.
inline unique_fd load_ebpf(bpf_prog_type type, bpf_attach_type attach_as, std::string_view name,
                           const std::vector<bpf_insn>& program) {
    detail::ebpf_request request;
    request.attributes.prog_type = type;
    request.attributes.expected_attach_type = attach_as;
    request.attributes.insns = detail::ebpf_pointer(program.data());
    request.attributes.insn_cnt = static_cast<std::uint32_t>(program.size());
    request.attributes.license = detail::ebpf_pointer("Dual MIT/GPL");
    std::memcpy(request.attributes.prog_name, name.data(),
                name.size() < BPF_OBJ_NAME_LEN ? name.size() : BPF_OBJ_NAME_LEN - 1);
    // EAGAIN: a signal came while the verifier was at work.
    int fd = -1;
    for (int attempt = 0; attempt < 16; ++attempt) {
        fd = detail::call_bpf(BPF_PROG_LOAD, request);
        if (fd >= 0 || errno != EAGAIN) break;
    }
    return unique_fd(check(fd, "load the BPF program", name));
}

/// Attaches a program to the group; with `replaced`, in the place of that one, atomically (5.6).
/// False when `replaced` is not attached there any more.
/// Errors: EPERM without the capabilities, or where a group above allows no other program; E2BIG
/// for more than 64 on one group.
inline bool attach_ebpf(int group, int program, bpf_attach_type as, int replaced = -1) {
    detail::ebpf_request request;
    request.attributes.target_fd = static_cast<std::uint32_t>(group);
    request.attributes.attach_bpf_fd = static_cast<std::uint32_t>(program);
    request.attributes.attach_type = as;
    request.attributes.attach_flags = BPF_F_ALLOW_MULTI;
    if (replaced >= 0) {
        request.attributes.attach_flags |= BPF_F_REPLACE;
        request.attributes.replace_bpf_fd = static_cast<std::uint32_t>(replaced);
    }
    const int result = detail::call_bpf(BPF_PROG_ATTACH, request);
    if (result < 0 && errno == ENOENT && replaced >= 0) return false;
    check(result, "attach the BPF program");
    return true;
}

/// Detaches a program from the group; false when it is not attached there.
inline bool detach_ebpf(int group, int program, bpf_attach_type as) {
    detail::ebpf_request request;
    request.attributes.target_fd = static_cast<std::uint32_t>(group);
    request.attributes.attach_bpf_fd = static_cast<std::uint32_t>(program);
    request.attributes.attach_type = as;
    const int result = detail::call_bpf(BPF_PROG_DETACH, request);
    if (result < 0 && errno == ENOENT) return false;
    check(result, "detach the BPF program");
    return true;
}

/// The ids of the programs that are attached to the group itself, in the order in which they run.
inline std::vector<std::uint32_t> attached_ebpf(int group, bpf_attach_type as) {
    std::vector<std::uint32_t> ids(64);  // the kernel's limit for one group
    detail::ebpf_request request;
    request.attributes.query.target_fd = static_cast<std::uint32_t>(group);
    request.attributes.query.attach_type = as;
    request.attributes.query.prog_ids = detail::ebpf_pointer(ids.data());
    request.attributes.query.prog_cnt = static_cast<std::uint32_t>(ids.size());
    check(detail::call_bpf(BPF_PROG_QUERY, request), "list the BPF programs of the group");
    ids.resize(request.attributes.query.prog_cnt);
    return ids;
}

/// The program of this id; not open when it is gone by now.
inline unique_fd open_ebpf(std::uint32_t id) {
    detail::ebpf_request request;
    request.attributes.prog_id = id;
    const int fd = detail::call_bpf(BPF_PROG_GET_FD_BY_ID, request);
    if (fd < 0 && errno == ENOENT) return unique_fd();
    return unique_fd(check(fd, "open a BPF program"));
}

/// The name that the program was loaded with.
inline std::string name_of_ebpf(int program) {
    bpf_prog_info info{};
    detail::ebpf_request request;
    request.attributes.info.bpf_fd = static_cast<std::uint32_t>(program);
    request.attributes.info.info_len = sizeof info;
    request.attributes.info.info = detail::ebpf_pointer(&info);
    check(detail::call_bpf(BPF_OBJ_GET_INFO_BY_FD, request), "ask for a BPF program's name");
    return {info.name, ::strnlen(info.name, sizeof info.name)};
}

}  // namespace kumiki::inline v0::sys
