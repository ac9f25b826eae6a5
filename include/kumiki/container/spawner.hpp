// The threads that clone. A child that shares memory suspends the thread that made it up to its
// execve (CLONE_VFORK), so that thread is never one of the host program's and never the one that
// drives a ring; and a parent-death signal is bound to the thread that made the child, so these
// threads live as long as the process.
//
// CLONE_VM is used together with CLONE_VFORK or not at all: the OOM killer spares whoever waits in
// a vfork, and would otherwise take the supervisor along with a child that shares its memory.
#pragma once

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include <kumiki/core/error.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/raw.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// Work for a spawner's thread: asked for by one thread, done by another. Must outlive wait().
struct spawner_job {
    explicit spawner_job(void (*work)(spawner_job&, char*) noexcept) : carry_out(work) {}

    void (*carry_out)(spawner_job& self, char* stack) noexcept;
    bool finished = false;  ///< guarded by the spawner's mutex
};

/// The process's spawner threads: started as needed, at most `most`, and never ended.
class spawner {
  public:
    static constexpr std::size_t stack_size = 64 * 1024;

    /// The process's own. A fork of it starts with none: threads are not copied.
    static spawner& shared() {
        static std::atomic<spawner*> current{nullptr};
        for (spawner* found = current.load();;) {
            if (found != nullptr && found->process_ == ::getpid()) return *found;
            // Never destroyed: its threads sleep in it until the process ends.
            auto fresh = std::make_unique<spawner>();
            if (current.compare_exchange_strong(found, fresh.get())) return *fresh.release();
        }
    }

    void submit(spawner_job& job) {
        {
            const std::lock_guard hold(mutex_);
            queue_.push_back(&job);
            if (idle_ < queue_.size() && threads_ < most) start_thread();
        }
        wake_.notify_one();  // with the lock held the thread would wake up only to wait for it
    }

    /// Takes back a job that no thread has begun with; false when it is too late.
    bool withdraw(spawner_job& job) {
        const std::lock_guard hold(mutex_);
        const auto removed = std::erase(queue_, &job);
        if (removed != 0) job.finished = true;
        return removed != 0;
    }

    /// Waits until the job is done. A clone is done when it has failed, or when the child has
    /// executed its command or ended: whoever wants that bounded kills the child first.
    void wait(const spawner_job& job) {
        std::unique_lock hold(mutex_);
        done_.wait(hold, [&] { return job.finished; });
    }

    /// A child that changes its ids makes the memory that it shares undumpable; what the process
    /// was before its first such child is restored after each.
    void begin_sharing() {
        const std::lock_guard hold(mutex_);
        if (sharing_++ == 0 && hiding_ == 0) dumpable_ = ::prctl(PR_GET_DUMPABLE);
    }
    void end_sharing() {
        const std::lock_guard hold(mutex_);
        --sharing_;
        restore_dumpable();
    }
    /// A child that is born where others can see it is a copy of memory that is not dumpable.
    void begin_hiding() {
        const std::lock_guard hold(mutex_);
        if (hiding_++ == 0 && sharing_ == 0) dumpable_ = ::prctl(PR_GET_DUMPABLE);
        ::prctl(PR_SET_DUMPABLE, 0);
    }
    void end_hiding() {
        const std::lock_guard hold(mutex_);
        --hiding_;
        restore_dumpable();
    }

  private:
    static constexpr std::size_t most = 16;

    void restore_dumpable() {
        if (hiding_ == 0 && dumpable_ == 1 && ::prctl(PR_GET_DUMPABLE) != 1)
            ::prctl(PR_SET_DUMPABLE, 1);
    }
    static constexpr std::size_t guard_size = 64 * 1024;  // a page, whatever its size

    void start_thread() {
        // The thread inherits a full mask: no handler of the host program ever runs on it, nor on
        // a child's stack.
        sigset_t all;
        sigset_t before;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before);
        try {
            std::thread([this] { serve(); }).detach();
            ++threads_;
        } catch (...) {
            ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
            if (threads_ == 0) {
                queue_.pop_back();
                throw error(EAGAIN, {.operation = "start the spawner thread"});
            }
            return;
        }
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    void serve() noexcept {
        // The libc keeps two signals of its own out of pthread_sigmask; the child gets neither.
        std::uint64_t all = ~std::uint64_t{0};
        sys::raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, reinterpret_cast<long>(&all), 0,
                         sizeof all);
        void* const memory = ::mmap(nullptr, guard_size + stack_size, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        char* stack = nullptr;
        if (memory != MAP_FAILED && ::mprotect(memory, guard_size, PROT_NONE) == 0)
            stack = static_cast<char*>(memory) + guard_size;
        std::unique_lock hold(mutex_);
        for (;;) {
            ++idle_;
            wake_.wait(hold, [this] { return !queue_.empty(); });
            --idle_;
            spawner_job& job = *queue_.front();
            queue_.pop_front();
            hold.unlock();
            job.carry_out(job, stack);
            hold.lock();
            job.finished = true;
            done_.notify_all();
        }
    }

    const pid_t process_ = ::getpid();
    std::mutex mutex_;
    std::condition_variable wake_;
    std::condition_variable done_;
    std::deque<spawner_job*> queue_;
    std::size_t idle_ = 0;
    std::size_t threads_ = 0;
    std::size_t sharing_ = 0;
    std::size_t hiding_ = 0;
    int dumpable_ = 1;
};

}  // namespace detail
}  // namespace kumiki::inline v0
