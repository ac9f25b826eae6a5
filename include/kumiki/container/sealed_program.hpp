// Small programs that are made in memory and executed from there, in a file that nobody can change
// and that no file system has: the init (init.hpp), and what waits in a container of a pool (waiter.hpp).
//
// memfd_create(2) with F_ADD_SEALS: 3.17. Left out: sections, relocations, writable data.
#pragma once

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::detail {

/// What a file will hold that is mapped at `base`: room in front, then texts and lists of them.
class mapped_text {
  public:
    mapped_text(std::uint64_t base, std::size_t room) : base_(base), contents_(room, '\0') {}

    void append(const void* data, std::size_t size) {
        contents_.append(static_cast<const char*>(data), size);
    }
    /// The address of a null-terminated list of C strings.
    std::uint64_t list(const std::vector<std::string>& values) {
        std::vector<std::uint64_t> addresses;
        for (const std::string& value : values) {
            addresses.push_back(base_ + contents_.size());
            append(value.c_str(), value.size() + 1);
        }
        addresses.push_back(0);
        contents_.resize((contents_.size() + 7) / 8 * 8);
        const std::uint64_t at = base_ + contents_.size();
        append(addresses.data(), addresses.size() * sizeof addresses[0]);
        return at;
    }
    /// Writes into the room in front.
    template <class Object>
    void put(std::size_t at, const Object& value) {
        std::memcpy(&contents_[at], &value, sizeof value);
    }
    std::uint64_t base() const noexcept { return base_; }
    const std::string& contents() const noexcept { return contents_; }

  private:
    std::uint64_t base_;
    std::string contents_;
};

/// Where the code of a program begins in its file: behind the headers and up to 80 bytes of words.
inline constexpr std::size_t program_code_at = 256;
inline constexpr std::uint64_t program_base = 0x400000;

/// A program of `code`, which finds `words` right before itself. More may be appended.
template <class Words>
mapped_text begin_program(std::span<const std::byte> code) {
    static_assert(sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr) + sizeof(Words) <= program_code_at);
    mapped_text made(program_base, program_code_at);
    made.append(code.data(), code.size());
    return made;
}

/// Writes the words and the headers, once all of it is there.
template <class Words>
void finish_program(mapped_text& to, const Words& words) {
    to.put(program_code_at - sizeof words, words);
    Elf64_Ehdr file{};
    std::memcpy(file.e_ident, ELFMAG, SELFMAG);
    file.e_ident[EI_CLASS] = ELFCLASS64;
    file.e_ident[EI_DATA] = ELFDATA2LSB;
    file.e_ident[EI_VERSION] = EV_CURRENT;
    file.e_type = ET_EXEC;
    file.e_machine = EM_X86_64;
    file.e_version = EV_CURRENT;
    file.e_entry = program_base + program_code_at;
    file.e_phoff = sizeof file;
    file.e_ehsize = sizeof file;
    file.e_phentsize = sizeof(Elf64_Phdr);
    file.e_phnum = 2;
    Elf64_Phdr parts[2]{};
    parts[0].p_type = PT_LOAD;
    parts[0].p_flags = PF_R | PF_X;
    parts[0].p_vaddr = parts[0].p_paddr = program_base;
    parts[0].p_filesz = parts[0].p_memsz = to.contents().size();
    parts[0].p_align = 4096;
    parts[1].p_type = PT_GNU_STACK;
    parts[1].p_flags = PF_R | PF_W;
    to.put(0, file);
    to.put(sizeof file, parts);
}

/// Writes all of `contents` into a file in memory; `what` is for errors.
inline void fill_memory_file(int file, std::string_view contents, const char* what) {
    while (!contents.empty()) {
        const auto size =
            sys::check(sys::retry([&] { return ::write(file, contents.data(), contents.size()); }),
                       "write", what);
        contents.remove_prefix(static_cast<std::size_t>(size));
    }
}

/// A file that exists nowhere but in this descriptor, and that nobody can change; `what` is for
/// errors. Errors: `unsupported` on a host that forbids such programs.
inline unique_fd seal_program(const char* name, std::string_view contents, const char* what) {
    constexpr unsigned executable = 0x10;  // MFD_EXEC: 6.3, which warns of its absence
    constexpr unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int made = ::memfd_create(name, flags | executable);
    if (made < 0 && errno == EINVAL) made = ::memfd_create(name, flags);
    if (made < 0 && errno == EACCES)
        throw unsupported(EACCES, {.operation = "make",
                                   .object = what,
                                   .step = {},
                                   .container = {},
                                   .remedy = "The sysctl vm.memfd_noexec forbids it here."});
    unique_fd file(sys::check(made, "make", what));
    fill_memory_file(file.get(), contents, what);
    sys::check(::fchmod(file.get(), 0555), "chmod", what);
    sys::check(
        ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE),
        "seal", what);
    return file;
}

}  // namespace kumiki::inline v0::detail
