// An init for containers: a program of some 400 bytes that is PID 1, reaps what is orphaned there,
// hands every signal on to the payload, and ends with it.
//
// It lies in a sealed memfd of each container's own: no file of the host is executed, and nothing of
// this process's memory stays in the container. The code is the assembly below, between two labels;
// an ELF header, the payload's command and its arguments are put around it. Over the control socket,
// which it keeps, it tells how the payload's execve went ('x' and errno), and at the end the wait
// status, four bytes: PID 1 cannot die by a signal of its own. Kernel: 5.9 (close_range). Left out:
// other machines than x86-64; SIGSTOP and SIGKILL, which nobody can hand on.
#pragma once

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/container/init_code.hpp>
#include <kumiki/container/process_spec.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace kumiki::inline v0::detail {

/// The file that is executed: headers, words, code, lists and texts, mapped as it is at `base`.
class init_image {
  public:
    init_image(const std::vector<std::string>& paths, const std::vector<std::string>& arguments,
               int control, bool terminal) {
        const auto code = init_code();
        contents_.resize(code_at);
        append(code.data(), code.size());
        init_words words{.control = control, .terminal = terminal ? 1 : 0};
        words.paths = list(paths);
        words.arguments = list(arguments);
        std::memcpy(&contents_[code_at - sizeof words], &words, sizeof words);
        write_headers();
    }
    const std::string& contents() const noexcept { return contents_; }

  private:
    static constexpr std::uint64_t base = 0x400000;
    static constexpr std::size_t code_at = 256;  ///< behind the headers and the words

    void append(const void* data, std::size_t size) {
        contents_.append(static_cast<const char*>(data), size);
    }
    /// The address of a null-terminated list of C strings.
    std::uint64_t list(const std::vector<std::string>& values) {
        std::vector<std::uint64_t> addresses;
        for (const std::string& value : values) {
            addresses.push_back(base + contents_.size());
            append(value.c_str(), value.size() + 1);
        }
        addresses.push_back(0);
        contents_.resize((contents_.size() + 7) / 8 * 8);
        const std::uint64_t at = base + contents_.size();
        append(addresses.data(), addresses.size() * sizeof addresses[0]);
        return at;
    }
    void write_headers() {
        Elf64_Ehdr file{};
        std::memcpy(file.e_ident, ELFMAG, SELFMAG);
        file.e_ident[EI_CLASS] = ELFCLASS64;
        file.e_ident[EI_DATA] = ELFDATA2LSB;
        file.e_ident[EI_VERSION] = EV_CURRENT;
        file.e_type = ET_EXEC;
        file.e_machine = EM_X86_64;
        file.e_version = EV_CURRENT;
        file.e_entry = base + code_at;
        file.e_phoff = sizeof file;
        file.e_ehsize = sizeof file;
        file.e_phentsize = sizeof(Elf64_Phdr);
        file.e_phnum = 2;
        Elf64_Phdr parts[2]{};
        parts[0].p_type = PT_LOAD;
        parts[0].p_flags = PF_R | PF_X;
        parts[0].p_vaddr = parts[0].p_paddr = base;
        parts[0].p_filesz = parts[0].p_memsz = contents_.size();
        parts[0].p_align = 4096;
        parts[1].p_type = PT_GNU_STACK;
        parts[1].p_flags = PF_R | PF_W;
        static_assert(sizeof file + sizeof parts + sizeof(init_words) <= code_at);
        std::memcpy(&contents_[0], &file, sizeof file);
        std::memcpy(&contents_[sizeof file], parts, sizeof parts);
    }

    std::string contents_;
};

/// A file that exists nowhere but in this descriptor, and that nobody can change.
/// Errors: `unsupported` on a machine that has no init, or a host that forbids such programs.
inline unique_fd make_init(const process_spec& process, int control) {
    if (!has_init)
        throw unsupported(ENOSYS, {.operation = "make",
                                   .object = "the container's init",
                                   .step = {},
                                   .container = {},
                                   .remedy = "There is none for this machine: leave `init` away."});
    constexpr unsigned executable = 0x10;  // MFD_EXEC: 6.3, which warns of its absence
    constexpr unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int made = ::memfd_create("init", flags | executable);
    if (made < 0 && errno == EINVAL) made = ::memfd_create("init", flags);
    if (made < 0 && errno == EACCES)
        throw unsupported(EACCES, {.operation = "make",
                                   .object = "the container's init",
                                   .step = {},
                                   .container = {},
                                   .remedy = "The sysctl vm.memfd_noexec forbids it here."});
    unique_fd file(sys::check(made, "make", "the container's init"));
    const init_image image(process.candidates(), process.args, control,
                           process.terminal.has_value());
    std::string_view rest = image.contents();
    while (!rest.empty()) {
        const auto size =
            sys::check(sys::retry([&] { return ::write(file.get(), rest.data(), rest.size()); }),
                       "write", "the container's init");
        rest.remove_prefix(static_cast<std::size_t>(size));
    }
    sys::check(::fchmod(file.get(), 0555), "chmod", "the container's init");
    sys::check(
        ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE),
        "seal", "the container's init");
    return file;
}

/// How the payload ended, if its init has told it over `control`; else as `own`, the init itself.
inline sys::exit_status payload_status(int control, sys::exit_status own) {
    int status = 0;
    const auto size = ::recv(control, &status, sizeof status, MSG_DONTWAIT);
    if (size != static_cast<ssize_t>(sizeof status)) return own;
    own.code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
    own.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    own.core = WIFSIGNALED(status) && WCOREDUMP(status);
    return own;
}

}  // namespace kumiki::inline v0::detail
