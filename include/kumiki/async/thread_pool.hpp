// A few threads for calls that block and have no opcode: clone, mount, setns, getaddrinfo.
//
// Bounded: more calls than threads wait in line. The threads are made when they are needed, block
// every signal, and end with the scheduler. What a call changes for its own thread (namespaces,
// root, credentials) stays with that thread: do such things on a thread of your own.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

namespace kumiki::inline v0::detail {

/// A call in line or in flight.
class pool_job {
  public:
    pool_job() = default;
    pool_job(const pool_job&) = delete;
    pool_job& operator=(const pool_job&) = delete;
    /// On a thread of the pool.
    virtual void work() noexcept = 0;

  protected:
    ~pool_job() = default;

  private:
    friend class thread_pool;
    pool_job* next_ = nullptr;
};

class thread_pool {
  public:
    explicit thread_pool(unsigned most) : most_(std::max(most, 1U)) {}
    thread_pool(const thread_pool&) = delete;
    thread_pool& operator=(const thread_pool&) = delete;
    /// Waits for the calls in flight. None may be left in line.
    ~thread_pool() {
        {
            const std::lock_guard lock(mutex_);
            ending_ = true;
        }
        wake_.notify_all();
        for (std::thread& thread : threads_) thread.join();
    }

    /// Errors: std::system_error when the first thread cannot be made.
    void push(pool_job& job) {
        const std::lock_guard lock(mutex_);
        if (waiting_ == 0 && threads_.size() < most_) add_thread();
        job.next_ = nullptr;
        (last_ != nullptr ? last_->next_ : first_) = &job;
        last_ = &job;
        wake_.notify_one();
    }
    /// Takes a job out of the line; false when it was begun.
    bool remove(pool_job& job) noexcept {
        const std::lock_guard lock(mutex_);
        pool_job* before = nullptr;
        for (pool_job* at = first_; at != nullptr; before = at, at = at->next_) {
            if (at != &job) continue;
            (before != nullptr ? before->next_ : first_) = job.next_;
            if (last_ == &job) last_ = before;
            return true;
        }
        return false;
    }

  private:
    void add_thread() {
        sigset_t all;
        sigset_t before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);  // inherited: the host's signals go elsewhere
        try {
            threads_.emplace_back([this] { serve(); });
        } catch (...) {
            pthread_sigmask(SIG_SETMASK, &before, nullptr);
            if (threads_.empty()) throw;
            return;
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }
    void serve() noexcept {
        std::unique_lock lock(mutex_);
        for (;;) {
            ++waiting_;
            wake_.wait(lock, [this] { return first_ != nullptr || ending_; });
            --waiting_;
            if (first_ == nullptr) return;
            pool_job& job = *first_;
            first_ = job.next_;
            if (first_ == nullptr) last_ = nullptr;
            lock.unlock();
            job.work();  // `job` may be gone after this
            lock.lock();
        }
    }

    const std::size_t most_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<std::thread> threads_;
    std::size_t waiting_ = 0;
    bool ending_ = false;
    pool_job* first_ = nullptr;
    pool_job* last_ = nullptr;
};

}  // namespace kumiki::inline v0::detail
