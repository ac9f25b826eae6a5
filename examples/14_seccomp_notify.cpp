// Asking about system calls: a rule that lets a call of the container wait for an answer from here.
// The supervisor makes files that are not there, refuses devices and lets the rest pass. As root:
//
//   mknod of a pipe:    let through
//   mknod of a device:  refused
//   cat /from/outside:  given a descriptor
//   the container says:
//     made a pipe
//     no device
//     hello from the supervisor
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include <fmt/format.h>

#include <kumiki/kumiki.hpp>

using namespace kumiki;

constexpr const char* script =
    "mknod pipe p && echo made a pipe; mknod disk b 8 0 2>/dev/null || echo no device; "
    "cat /from/outside";

// Answers one call.
void answer(seccomp_call& call, int file) {
    if (call.name() == "mknodat") {
        const bool device = S_ISBLK(call.argument(2)) || S_ISCHR(call.argument(2));
        fmt::print("mknod of a {} {}\n",
                   device ? "device: " : "pipe:   ", device ? "refused" : "let through");
        device ? call.deny(EPERM) : call.allow();  // the mode is in a register: nobody changes it
        return;
    }
    // A path is in the caller's memory. What is given out here does not depend on it any more.
    if (call.read_text(call.argument(1)) == "/from/outside") {
        fmt::print("cat /from/outside:  given a descriptor\n");
        call.inject(file);
    } else {
        call.allow();
    }
}

task<int> ask(scheduler& io, std::string root) {
    const unique_fd file(::memfd_create("text", MFD_CLOEXEC));
    const unique_fd said(::memfd_create("output", MFD_CLOEXEC));
    if (::write(file.get(), "hello from the supervisor\n", 26) != 26) co_return 1;
    ::lseek(file.get(), 0, SEEK_SET);
    const auto filter = default_seccomp_filter(default_capabilities)
                            .on_first("mknodat", seccomp_action::notify())
                            .on_first("openat", seccomp_action::notify())
                            .compile();
    container_spec spec{
        .rootfs = rootfs::overlay(std::move(root)),
        .process = {.args = {"/busybox", "sh", "-c", script},
                    .stdio = {STDIN_FILENO, said.get(), said.get()},
                    .filter = std::make_shared<const seccomp_program>(filter)},
    };
    auto box = co_await container::start(io, std::move(spec));
    for (;;) {
        auto call = co_await box.seccomp_calls()->next();
        if (!call) break;  // the container has ended
        answer(*call, file.get());
    }  // a call that is dropped without an answer fails with EPERM
    auto result = co_await box.wait();
    ::lseek(said.get(), 0, SEEK_SET);
    fmt::print("the container says:\n{}", sys::read_all(said.get(), "its output"));
    co_return result.exit_code();
}

int main() try {
    char root[] = "/tmp/kumiki-example.XXXXXX";
    if (::geteuid() != 0 || ::access("/bin/busybox", X_OK) != 0 || ::mkdtemp(root) == nullptr) {
        fmt::print(stderr, "It takes root and a static /bin/busybox.\n");
        return 77;
    }
    const std::string busybox = root + std::string("/busybox");
    const scope_exit remove([&]() noexcept {
        ::unlink(busybox.c_str());
        for (const char* name : {"/bin", ""}) ::rmdir((root + std::string(name)).c_str());
    });
    const std::string copy = sys::read_file_at(AT_FDCWD, "/bin/busybox");
    const unique_fd to = sys::open_at(AT_FDCWD, busybox, O_CREAT | O_WRONLY, 0755);
    if (::write(to.get(), copy.data(), copy.size()) != static_cast<ssize_t>(copy.size())) return 1;
    return kumiki::run([&](scheduler& io) { return ask(io, root); });
} catch (const error& failure) {
    fmt::print(stderr, "{}\n", failure.what());
    return 1;
}
