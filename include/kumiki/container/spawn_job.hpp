// One clone3 on a spawner's thread: where the child is born, how its memory is made, and a thread
// that can be made ready while the plan of the child is still being written.
//
// A thread that sleeps takes as long to wake up as the plan takes to be written. So it can be asked
// for ahead, and stands by until it is told what to do.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include <kumiki/container/child.hpp>
#include <kumiki/container/spawner.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/ns/kind.hpp>
#include <kumiki/sys/raw.hpp>

namespace kumiki::inline v0 {

/// How a child is made.
enum class clone_mode : std::uint8_t {
    automatic,  ///< shared memory where that is possible
    shared_memory,  ///< CLONE_VM | CLONE_VFORK: costs the same whatever the size of this process
    own_memory,  ///< a copy of the page tables, as fork makes
};

namespace detail {

/// A namespace that a child is born in, and not in that of a spawner's thread: the thread goes there
/// for the clone, and comes back.
struct birth_place {
    unique_fd fd{};
    namespace_kind kind = namespace_kind::none;
    unique_fd home{};

    /// Opens what leads back. A thread's own, but for pid: all threads of a process are in one.
    void open_home() noexcept { home.reset(::open(home_link(), O_RDONLY | O_CLOEXEC)); }
    /// errno, or 0.
    int enter() noexcept {
        if (!home) open_home();
        if (!home || ::setns(fd.get(), static_cast<int>(clone_flags(kind))) != 0) return errno;
        return 0;
    }
    void leave() noexcept {
        if (home) ::setns(home.get(), static_cast<int>(clone_flags(kind)));
        home.reset();
    }

  private:
    const char* home_link() const noexcept {
        switch (kind) {
        case namespace_kind::net:
            return "/proc/thread-self/ns/net";
        case namespace_kind::ipc:
            return "/proc/thread-self/ns/ipc";
        case namespace_kind::uts:
            return "/proc/thread-self/ns/uts";
        case namespace_kind::pid:  // setns(2) moves only the children
            return "/proc/thread-self/ns/pid";
        default:
            return "";
        }
    }
};

/// One clone3.
struct spawn_job : spawner_job {
    spawn_job() : spawner_job(&make) {}

    std::uint64_t flags = 0;  ///< CLONE_NEW* and the like; CLONE_PIDFD is added
    int cgroup = -1;  ///< the cgroup to be born in; -1: the parent's
    std::vector<birth_place> places{};  ///< of other kinds it is this thread's namespaces
    bool shared_memory = true;
    bool hidden =
        false;  ///< born not dumpable: as a copy of memory that is not; so at a birth place
    child_program* program = nullptr;
    unique_fd child_end{};  ///< closed here once the child has its own copy

    /// What the thread is to do. One that is made ready is told by set_order().
    enum class order : std::uint32_t { stand_by, go, give_up };
    std::atomic<order> wanted{order::go};
    void set_order(order now) noexcept {
        wanted.store(now);
        wanted.notify_one();
    }

    pid_t pid = 0;  ///< set before the child's first step
    int pidfd = -1;  ///< likewise; the caller takes it over
    int error = 0;  ///< errno of a clone3 that failed; valid after wait()

  private:
    /// Waits for the order: for as long as a plan takes awake, then asleep. While awake it leaves the
    /// core to its sibling, which may be writing the plan.
    order await_order() const noexcept {
        const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(100);
        while (wanted.load() == order::stand_by && std::chrono::steady_clock::now() < until)
            for (int turn = 0; turn < 16; ++turn) sys::pause();
        wanted.wait(order::stand_by);
        return wanted.load();
    }

    static void make(spawner_job& self, char* stack) noexcept {
        auto& job = static_cast<spawn_job&>(self);
        if (job.await_order() != order::go) return;
        long result = 0;
        for (birth_place& place : job.places)
            if (result == 0) result = -place.enter();
        if (result == 0) result = job.clone(stack);
        for (birth_place& place : job.places) place.leave();
        job.error = result < 0 ? static_cast<int>(-result) : 0;
        // The kernel has written a number before it failed, of a descriptor that never was.
        if (result < 0) job.pidfd = -1;
        job.child_end.reset();
    }

    /// The child's pid, or a negative errno.
    long clone(char* stack) noexcept {
        sys::clone_arguments request{
            .flags = flags | sys::clone_pidfd | sys::clone_parent_settid |
                     sys::clone_clear_sighand | (cgroup >= 0 ? sys::clone_into_cgroup : 0),
            .pidfd = reinterpret_cast<std::uint64_t>(&pidfd),
            .parent_tid = reinterpret_cast<std::uint64_t>(&pid),
            .exit_signal = SIGCHLD,
            .cgroup = static_cast<std::uint64_t>(cgroup >= 0 ? cgroup : 0)};
        if (!shared_memory) {
            const bool hides = hidden || !places.empty();
            if (hides) spawner::shared().begin_hiding();
            const long result = sys::clone_copied(request, child_main, program);
            if (hides) spawner::shared().end_hiding();
            return result;
        }
        if (stack == nullptr) return -ENOMEM;
        request.flags |= sys::clone_vm | sys::clone_vfork;
        request.stack = reinterpret_cast<std::uint64_t>(stack);
        request.stack_size = spawner::stack_size;
        spawner::shared().begin_sharing();
        const long result = sys::clone_on_stack(request, child_main, program);
        spawner::shared().end_sharing();
        return result;
    }
};

}  // namespace detail
}  // namespace kumiki::inline v0
