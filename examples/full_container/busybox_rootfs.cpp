#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include <kumiki/core/error.hpp>
#include <kumiki/core/scope_exit.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

#include "busybox_rootfs.hpp"

namespace example {
namespace {

using namespace kumiki;

constexpr auto applets = std::to_array<const char*>(
    {"[",      "ash",     "awk",      "base64",  "basename", "cat",       "chgrp",   "chmod",
     "chown",  "clear",   "cmp",      "cp",      "cut",      "date",      "dd",      "df",
     "diff",   "dirname", "dmesg",    "du",      "echo",     "env",       "expr",    "false",
     "find",   "free",    "grep",     "gunzip",  "gzip",     "head",      "hexdump", "hostname",
     "httpd",  "id",      "ifconfig", "install", "ip",       "kill",      "less",    "ln",
     "ls",     "md5sum",  "mkdir",    "mkfifo",  "mknod",    "mktemp",    "more",    "mount",
     "mv",     "nc",      "netstat",  "nice",    "nproc",    "nslookup",  "od",      "ping",
     "ping6",  "printf",  "ps",       "pwd",     "readlink", "realpath",  "renice",  "rm",
     "rmdir",  "route",   "sed",      "seq",     "sh",       "sha256sum", "sleep",   "sort",
     "stat",   "stty",    "su",       "sync",    "tail",     "tar",       "tee",     "telnet",
     "test",   "time",    "timeout",  "top",     "touch",    "tr",        "true",    "tty",
     "umount", "uname",   "uniq",     "unlink",  "uptime",   "usleep",    "vi",      "watch",
     "wc",     "wget",    "which",    "whoami",  "xargs",    "xxd",       "yes",     "zcat"});

/// True for a program of this machine that asks for no dynamic loader.
bool is_static_program(int fd) {
    Elf64_Ehdr head{};
    if (::pread(fd, &head, sizeof head, 0) != static_cast<ssize_t>(sizeof head)) return false;
    if (head.e_ident[EI_MAG0] != ELFMAG0 || head.e_ident[EI_MAG1] != ELFMAG1 ||
        head.e_ident[EI_MAG2] != ELFMAG2 || head.e_ident[EI_MAG3] != ELFMAG3 ||
        head.e_ident[EI_CLASS] != ELFCLASS64)
        return false;
    for (unsigned i = 0; i < head.e_phnum; ++i) {
        Elf64_Phdr part{};
        const auto at = static_cast<off_t>(head.e_phoff + i * sizeof part);
        if (::pread(fd, &part, sizeof part, at) != static_cast<ssize_t>(sizeof part)) return false;
        if (part.p_type == PT_INTERP) return false;
    }
    return true;
}

unique_fd open_busybox() {
    for (const char* path : {"/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"}) {
        auto fd = sys::try_open_at(AT_FDCWD, path, O_RDONLY);
        if (fd && is_static_program(fd->get())) return std::move(*fd);
    }
    throw error(ENOENT, {.operation = "find",
                         .object = "a static busybox",
                         .remedy = "apt-get install busybox-static, or name a root filesystem with "
                                   "--rootfs."});
}

void make_directory(const std::string& path, mode_t mode = 0755) {
    sys::check(::mkdir(path.c_str(), mode), "make directory", path);
    sys::check(::chmod(path.c_str(), mode), "set the mode of", path);  // whatever the umask
}

void copy_program(int from, const std::string& path) {
    const unique_fd to = sys::open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL, 0755);
    sys::check(::fchmod(to.get(), 0755), "set the mode of", path);
    for (;;) {
        const auto n = ::sendfile(to.get(), from, nullptr, std::size_t{1} << 20);
        if (sys::check(n, "write", path) == 0) return;
    }
}

}  // namespace

busybox_rootfs::busybox_rootfs() {
    std::error_code none;
    std::string pattern = std::filesystem::temp_directory_path(none).string();
    if (none || pattern.empty()) pattern = "/tmp";
    pattern += "/kumiki-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) sys::check(-1, "make a temporary directory", pattern);
    path_ = pattern;
    scope_fail remove([&]() noexcept { std::filesystem::remove_all(path_, none); });
    fill();
}

busybox_rootfs::~busybox_rootfs() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

void busybox_rootfs::fill() const {
    sys::check(::chmod(path_.c_str(), 0755), "set the mode of", path_);
    for (const char* name : {"bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys",
                             "usr", "usr/bin", "var", "www"})
        make_directory(path_ + "/" + name);
    make_directory(path_ + "/tmp", 01777);
    copy_program(open_busybox().get(), path_ + "/bin/busybox");
    for (const char* applet : applets) {
        const std::string link = path_ + "/bin/" + applet;
        sys::check(::symlink("busybox", link.c_str()), "make", link);
    }
    write("/etc/passwd",
          "root:x:0:0:root:/root:/bin/sh\n"
          "www:x:33:33:www:/www:/bin/false\n"
          "nobody:x:65534:65534:nobody:/:/bin/false\n");
    write("/etc/group", "root:x:0:\nwww:x:33:\nnogroup:x:65534:\n");
    write("/etc/profile", "export PS1='\\u@\\h:\\w\\$ '\n");
    write("/www/index.html", "A page from a kumiki container.\n");
}

void busybox_rootfs::write(std::string_view inside, std::string_view text) const {
    const std::string path = path_ + std::string(inside);
    const unique_fd file = sys::open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    sys::check(::fchmod(file.get(), 0644), "set the mode of", path);
    sys::check(::write(file.get(), text.data(), text.size()), "write", path);
}

}  // namespace example
