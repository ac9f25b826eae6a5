// Other programs, executed as a shell would: to measure them, and to prepare what they work on.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include <kumiki/sys/file.hpp>

#include "support/field.hpp"

namespace bench {

/// A program that was started. Killed and collected when this goes.
class running_program {
  public:
    /// `args.front()` is looked for in PATH; what it reads is in the file `input` (-1: nothing).
    running_program(std::vector<std::string> args, int input, int output,
                    std::vector<std::string> environment = {})
        : name_(args.front()) {
        environment.emplace_back("PATH=/usr/sbin:/usr/bin:/sbin:/bin");
        const auto pointers = [](std::vector<std::string>& texts) {
            std::vector<char*> all;
            for (std::string& text : texts) all.push_back(text.data());
            all.push_back(nullptr);
            return all;
        };
        const auto argv = pointers(args);
        const auto env = pointers(environment);
        posix_spawn_file_actions_t files;
        ::posix_spawn_file_actions_init(&files);
        if (input >= 0)
            ::posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
        else
            ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        ::posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
        ::posix_spawn_file_actions_adddup2(&files, output, STDERR_FILENO);
        const int failed = ::posix_spawnp(&pid_, argv[0], &files, nullptr, argv.data(), env.data());
        ::posix_spawn_file_actions_destroy(&files);
        if (failed != 0) throw kumiki::error(failed, {.operation = "execute", .object = name_});
    }
    running_program(const running_program&) = delete;
    running_program& operator=(const running_program&) = delete;
    ~running_program() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
    }
    /// The exit status, once it has ended.
    int wait() {
        int status = 0;
        sys::check(sys::retry([&] { return ::waitpid(pid_, &status, 0); }), "waitpid", name_);
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
    }

  private:
    std::string name_;
    pid_t pid_ = -1;
};

/// A file in memory with `text` in it, to be read from its start.
inline unique_fd text_file(const std::string& text = {}) {
    unique_fd file(sys::check(::memfd_create("bench", MFD_CLOEXEC), "memfd_create"));
    sys::check(::write(file.get(), text.data(), text.size()), "write");
    sys::check(::lseek(file.get(), 0, SEEK_SET), "rewind");
    return file;
}

/// Runs a program to its end; what it wrote. Errors: one that quotes that, when it failed.
inline std::string run_program(std::vector<std::string> args, const std::string& input = {},
                               std::vector<std::string> environment = {}) {
    const unique_fd reads = text_file(input);
    const unique_fd writes = text_file();
    const std::string name = args.front() + " " + (args.size() > 1 ? args[1] : "");
    const int status =
        running_program(std::move(args), reads.get(), writes.get(), std::move(environment)).wait();
    sys::check(::lseek(writes.get(), 0, SEEK_SET), "rewind");
    std::string text = sys::read_all(writes.get(), name);
    if (status != 0)
        throw kumiki::error(0, {.operation = "run", .object = name, .remedy = "It said: " + text});
    return text;
}

/// The words of `line`, separated by single spaces.
inline std::vector<std::string> words(const std::string& line) {
    std::vector<std::string> all(1);
    for (const char c : line)
        if (c == ' ')
            all.emplace_back();
        else
            all.back() += c;
    return all;
}

}  // namespace bench
