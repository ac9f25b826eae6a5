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

#include <kumiki/container/process_spec.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/pidfd.hpp>

namespace kumiki::inline v0::detail {

/// What the code finds right before itself, in this layout.
struct init_words {
    std::uint64_t paths = 0;  ///< null-terminated list of where the command may be
    std::uint64_t arguments = 0;  ///< the payload's
    std::int64_t control = -1;  ///< the control socket
    std::int64_t terminal = 0;  ///< whether 0 becomes the payload's controlling terminal
};
static_assert(sizeof(init_words) == 32);

#if defined(__x86_64__) && !defined(__ILP32__)
inline constexpr bool has_init = true;

/// rbx: the words; rbp: the payload; r13: the control socket; r14: the environment. All signals are
/// blocked when it begins. 0(%rsp) is the errno of the payload's execve, written by the payload: up
/// to that the two share their memory (CLONE_VM | CLONE_VFORK).
inline std::span<const std::byte> init_code() noexcept {
    const std::byte* begin = nullptr;
    const std::byte* end = nullptr;
    asm(".pushsection .text.kumiki_init, \"ax\", @progbits\n"
        "771: mov (%%rsp), %%rax\n\t"  // argc
        "lea 16(%%rsp, %%rax, 8), %%r14\n\t"
        "lea 771b-32(%%rip), %%rbx\n\t"
        "mov 16(%%rbx), %%r13\n\t"
        "sub $64, %%rsp\n\t"
        "mov $157, %%eax\n\t"  // prctl(PR_SET_NAME, "init")
        "mov $15, %%edi\n\t"
        "lea 773f(%%rip), %%rsi\n\t"
        "syscall\n\t"
        "mov $72, %%eax\n\t"  // fcntl(control, F_SETFD, FD_CLOEXEC)
        "mov %%r13, %%rdi\n\t"
        "mov $2, %%esi\n\t"
        "mov $1, %%edx\n\t"
        "syscall\n\t"
        "movq $0, (%%rsp)\n\t"
        "mov $56, %%eax\n\t"  // clone(CLONE_VM | CLONE_VFORK | SIGCHLD)
        "mov $0x4111, %%edi\n\t"
        "xor %%esi, %%esi\n\t"
        "xor %%edx, %%edx\n\t"
        "xor %%r10d, %%r10d\n\t"
        "xor %%r8d, %%r8d\n\t"
        "syscall\n\t"
        "test %%rax, %%rax\n\t"
        "jnz 6f\n\t"

        "mov $112, %%eax\n\t"  // in the payload: setsid()
        "syscall\n\t"
        "cmpq $0, 24(%%rbx)\n\t"
        "je 1f\n\t"
        "mov $16, %%eax\n\t"  // ioctl(0, TIOCSCTTY, 0)
        "xor %%edi, %%edi\n\t"
        "mov $0x540e, %%esi\n\t"
        "xor %%edx, %%edx\n\t"
        "syscall\n"
        "1: mov $157, %%eax\n\t"  // prctl(PR_SET_PDEATHSIG, SIGKILL)
        "mov $1, %%edi\n\t"
        "mov $9, %%esi\n\t"
        "syscall\n\t"
        "movq $0, 8(%%rsp)\n\t"
        "mov $14, %%eax\n\t"  // rt_sigprocmask(SIG_SETMASK, none)
        "mov $2, %%edi\n\t"
        "lea 8(%%rsp), %%rsi\n\t"
        "xor %%edx, %%edx\n\t"
        "mov $8, %%r10d\n\t"
        "syscall\n\t"
        "mov (%%rbx), %%r12\n\t"
        "mov $-2, %%r15\n"  // ENOENT, until a path says more: as child_exec()
        "2: mov (%%r12), %%rdi\n\t"
        "test %%rdi, %%rdi\n\t"
        "jz 5f\n\t"
        "mov $59, %%eax\n\t"  // execve
        "mov 8(%%rbx), %%rsi\n\t"
        "mov %%r14, %%rdx\n\t"
        "syscall\n\t"
        "add $8, %%r12\n\t"
        "cmp $-2, %%rax\n\t"
        "je 2b\n\t"
        "cmp $-20, %%rax\n\t"  // ENOTDIR
        "je 2b\n\t"
        "mov %%rax, %%r15\n\t"
        "cmp $-13, %%rax\n\t"  // EACCES
        "je 2b\n"
        "5: neg %%r15\n\t"
        "mov %%r15, (%%rsp)\n\t"
        "mov $125, %%edi\n\t"
        "jmp 13f\n"

        "6: mov %%rax, %%rbp\n\t"  // in the init, the payload executed or not
        "test %%rax, %%rax\n\t"
        "jns 7f\n\t"
        "neg %%rax\n\t"
        "mov %%rax, (%%rsp)\n"
        "7: mov (%%rsp), %%eax\n\t"
        "movb $120, 16(%%rsp)\n\t"  // 'x'
        "mov %%al, 17(%%rsp)\n\t"
        "mov $2, %%edx\n\t"
        "call 14f\n\t"
        "mov $125, %%edi\n\t"
        "cmpb $0, 17(%%rsp)\n\t"
        "jne 13f\n\t"
        "mov $436, %%eax\n\t"  // close_range(0, 2, 0): they are the payload's alone
        "xor %%edi, %%edi\n\t"
        "mov $2, %%esi\n\t"
        "xor %%edx, %%edx\n\t"
        "syscall\n\t"
        "movq $-1, 8(%%rsp)\n"
        "8: mov $128, %%eax\n\t"  // rt_sigtimedwait(all)
        "lea 8(%%rsp), %%rdi\n\t"
        "xor %%esi, %%esi\n\t"
        "xor %%edx, %%edx\n\t"
        "mov $8, %%r10d\n\t"
        "syscall\n\t"
        "test %%eax, %%eax\n\t"
        "jle 8b\n\t"
        "cmp $17, %%eax\n\t"  // SIGCHLD
        "je 9f\n\t"
        "mov %%eax, %%esi\n\t"
        "mov %%ebp, %%edi\n\t"
        "mov $62, %%eax\n\t"  // kill
        "syscall\n\t"
        "jmp 8b\n"
        "9: mov $61, %%eax\n\t"  // wait4(-1, &status, WNOHANG | __WALL)
        "mov $-1, %%rdi\n\t"
        "lea 16(%%rsp), %%rsi\n\t"
        "mov $0x40000001, %%edx\n\t"
        "xor %%r10d, %%r10d\n\t"
        "syscall\n\t"
        "test %%eax, %%eax\n\t"
        "jle 8b\n\t"
        "cmp %%ebp, %%eax\n\t"
        "jne 9b\n\t"
        "mov $4, %%edx\n\t"
        "call 14f\n\t"
        "movzbl 17(%%rsp), %%edi\n\t"  // the exit status, or 128 and the signal
        "mov 16(%%rsp), %%eax\n\t"
        "and $127, %%eax\n\t"
        "jz 13f\n\t"
        "lea 128(%%rax), %%edi\n"
        "13: mov $231, %%eax\n\t"  // exit_group
        "syscall\n"
        "14: mov $1, %%eax\n\t"  // write(control, 16(%rsp) of the caller, edx): SIGPIPE is blocked
        "mov %%r13, %%rdi\n\t"
        "lea 24(%%rsp), %%rsi\n\t"
        "syscall\n\t"
        "ret\n"
        "773: .asciz \"init\"\n"
        "772:\n\t"
        ".popsection\n\t"
        "lea 771b(%%rip), %0\n\t"
        "lea 772b(%%rip), %1"
        : "=r"(begin), "=r"(end));
    return {begin, end};
}
#else
inline constexpr bool has_init = false;

inline std::span<const std::byte> init_code() noexcept { return {}; }
#endif

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
