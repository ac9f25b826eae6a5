// Containers for tests: a shell in a busybox root, its output, and starts that go wrong on purpose.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/container/container.hpp>

#include "support/busybox.hpp"
#include "support/failure.hpp"
#include "support/leaks.hpp"

namespace kumiki_test {

using namespace kumiki;

/// `script` run by the shell of `root`.
inline container_spec shell_spec(const busybox_root& root, std::string script) {
    static std::atomic<int> number{0};
    container_spec spec;
    spec.name = group_prefix() + std::to_string(number++);
    spec.rootfs = rootfs::overlay(root.path());
    spec.process.args = {"sh", "-c", std::move(script)};
    return spec;
}

/// The root filesystem of all who do not change it.
inline const busybox_root& busybox() {
    static const busybox_root root;
    return root;
}

inline container_spec shell(std::string script, std::vector<mount_description> mounts = {}) {
    container_spec spec = shell_spec(busybox(), std::move(script));
    spec.mounts = std::move(mounts);
    return spec;
}

inline user_mapping mapped_ids() {
    return {id_map({{0, 100000, 65536}}), id_map({{0, 100000, 65536}})};
}

/// In a user namespace of its own.
inline container_spec with_users(container_spec spec) {
    spec.user_namespace = mapped_ids();
    return spec;
}

inline exec_spec command(std::string script) { return {.args = {"sh", "-c", std::move(script)}}; }

/// A root filesystem with nothing in it: for what is not started.
inline const temporary_directory& empty_root() {
    static const temporary_directory root;
    return root;
}

inline container_spec good_spec() {
    container_spec spec;
    spec.rootfs = rootfs::overlay(empty_root().path());
    spec.process.args = {"true"};
    return spec;
}

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// A script for mountinfo's line of what is mounted at `target`: options, "-", type, source, superblock
/// options. As `process` sees it.
inline std::string line_of(const std::string& target, const std::string& process = "self") {
    return "grep -E '^([^ ]+ ){4}" + target + " ' /proc/" + process + "/mountinfo | cut -d' ' -f6-";
}

inline std::string text_of(const std::filesystem::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

inline bool has_controllers(controllers wanted) {
    return has(cgroup_root::open().available(), wanted);
}

inline task<container_result> start_and_wait(scheduler& io, container_spec spec) {
    auto box = co_await container::start(io, std::move(spec));
    auto result = co_await box.wait();
    co_return result;
}

struct outcome {
    container_result result;
    std::string output;
};

/// Both ends of a pipe.
struct pipe_pair {
    unique_fd in;
    unique_fd out;
    pipe_pair() {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
        in.reset(ends[0]);
        out.reset(ends[1]);
    }
};

/// All that can be read, from a descriptor or a container's pipe.
template <class Read>
task<std::string> read_all_by(Read read) {
    std::string text;
    for (;;) {
        std::byte buffer[4096];
        auto size = co_await read(buffer);
        if (size == 0) break;
        text.append(reinterpret_cast<const char*>(buffer), size);
    }
    co_return text;
}
inline task<std::string> read_all(scheduler& io, int fd) {
    return read_all_by([&io, fd](std::span<std::byte> to) { return io.read(fd, to); });
}
inline task<std::string> read_all(pipe_reader& from) {
    return read_all_by([&from](std::span<std::byte> to) { return from.read(to); });
}

/// Runs `spec` to its end and yields what it wrote to its standard output and error.
inline task<outcome> start_and_read(scheduler& io, container_spec spec) {
    pipe_pair pipe;
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDONLY);
    spec.process.stdio = {null.get(), pipe.out.get(), pipe.out.get()};
    auto box = co_await container::start(io, std::move(spec));
    pipe.out.reset();
    outcome seen;
    seen.output = co_await read_all(io, pipe.in.get());
    seen.result = co_await box.wait();
    co_return seen;
}

inline outcome run_shell(container_spec spec) {
    scheduler io;
    return io.run(start_and_read(io, std::move(spec)));
}

/// The error of a start.
inline error refusal(container_spec spec) {
    return failure_of([&] { run_shell(std::move(spec)); });
}

using use_container = std::function<void(container&)>;

inline task<void> start_and_use(scheduler& io, container_spec spec, use_container use) {
    auto box = co_await container::start(io, std::move(spec));
    use(box);
}

/// Starts `spec`, gives it to `use`, and destroys it while it runs.
inline void with_container(scheduler& io, container_spec spec, use_container use) {
    io.run(start_and_use(io, std::move(spec), std::move(use)));
}

inline task<void> start_two(scheduler& io, container_spec one, container_spec two,
                            std::function<void(container&, const std::string&)> use) {
    auto first = co_await container::start(io, std::move(one));
    std::string refusal;
    try {
        auto second = co_await container::start(io, std::move(two));
    } catch (const error& failure) {
        refusal = failure.what();
    }
    use(first, refusal);
}

inline void with_two(scheduler& io, container_spec one, container_spec two,
                     std::function<void(container&, const std::string&)> use) {
    io.run(start_two(io, std::move(one), std::move(two), std::move(use)));
}

/// Starts a shell that says something once it is ready, and stops it then.
inline task<container_result> start_and_stop(scheduler& io, container_spec spec,
                                             std::chrono::milliseconds grace) {
    pipe_pair pipe;
    spec.process.stdio[1] = pipe.out.get();
    auto box = co_await container::start(io, std::move(spec));
    pipe.out.reset();
    std::byte buffer[16];
    co_await io.read(pipe.in.get(), buffer);
    auto result = co_await box.stop(grace);
    co_return result;
}

/// Which step to spoil, and how many there are.
struct spoiled_step {
    std::size_t at = 0;
    std::size_t count = 0;
};

/// Step `at` becomes a system call that does not exist.
inline task<void> start_with_broken_step(scheduler& io, container_spec spec, std::size_t at,
                                         std::size_t& count) {
    spoiled_step spoiled{at, 0};
    const auto spoil = [](child_program& program, void* context) {
        auto& which = *static_cast<spoiled_step*>(context);
        which.count = program.count;
        auto* steps = const_cast<step*>(program.steps);
        steps[which.at] = step{.kind = step_kind::call, .in = steps[which.at].in, .number = -1};
    };
    try {
        auto parts =
            co_await detail::launch(io, std::move(spec), {.alter = spoil, .context = &spoiled});
        parts->kill_and_release();
    } catch (...) {
        count = spoiled.count;
        throw;
    }
}

/// Before step `at` the child kills itself. Without a pid namespace, whose first process cannot.
inline task<void> start_with_deadly_step(scheduler& io, container_spec spec, std::size_t at,
                                         std::size_t& count) {
    spec.namespaces = spec.namespaces & ~namespace_kind::pid;
    spoiled_step spoiled{at, 0};
    const auto spoil = [](child_program& program, void* context) {
        auto& which = *static_cast<spoiled_step*>(context);
        which.count = program.count - 1;
        if (which.at + 1 >= program.count) return;
        auto* steps = const_cast<step*>(program.steps);
        constexpr std::int8_t own = slot_count - 1;
        steps[which.at] = step{.in = steps[which.at].in, .result = own, .number = SYS_getpid};
        steps[which.at + 1] = step{
            .in = steps[which.at].in, .slots = 1, .number = SYS_kill, .arguments = {own, SIGKILL}};
    };
    try {
        auto parts =
            co_await detail::launch(io, std::move(spec), {.alter = spoil, .context = &spoiled});
        parts->kill_and_release();
    } catch (...) {
        count = spoiled.count;
        throw;
    }
}

/// The kinds of all events of a container.
inline task<std::vector<cgroup_event_kind>> start_and_watch(scheduler& io, container_spec spec) {
    auto box = co_await container::start(io, std::move(spec));
    auto events = box.events();
    std::vector<cgroup_event_kind> kinds;
    for (;;) {
        auto event = co_await events.next();
        if (!event) break;
        kinds.push_back(event->kind);
    }
    co_await box.wait();
    co_return kinds;
}

inline task<std::string> start_one_of_many(scheduler& io, container_spec spec) {
    auto seen = co_await start_and_read(io, std::move(spec));
    co_return seen.output;
}

inline task<std::vector<std::string>> start_many(scheduler& io, const busybox_root& root,
                                                 int count) {
    std::vector<task<std::string>> tasks;
    for (int i = 0; i < count; ++i) {
        auto spec = shell_spec(root, "hostname; grep -c '^0::/$' /proc/self/cgroup");
        spec.hostname = "many-" + std::to_string(i);
        tasks.push_back(start_one_of_many(io, std::move(spec)));
    }
    auto results = co_await when_all(std::move(tasks));
    co_return results;
}

}  // namespace kumiki_test
