// How another thread reaches a scheduler's thread: a locked list and an eventfd that wakes it.
//
// The nodes belong to whoever puts them in, so a stop that comes from another thread and a result
// of an offloaded call need no memory. Left out: waiting for the function that was posted.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::detail {

/// Something to be done on the scheduler's thread.
class posted_work {
  public:
    posted_work() = default;
    posted_work(const posted_work&) = delete;
    posted_work& operator=(const posted_work&) = delete;
    /// On the scheduler's thread, once it is out of the list.
    virtual void run_posted() noexcept = 0;
    /// In its place, when the scheduler ends first.
    virtual void discard_posted() noexcept = 0;

    /// True while it is in a remote queue.
    bool is_queued() const noexcept { return queued_; }
    /// True while it is in any queue.
    bool is_listed() const noexcept { return queued_ || next_ != nullptr; }

  protected:
    ~posted_work() = default;

  private:
    friend class remote_queue;
    friend class ready_queue;  // a coroutine is in the one or in the other
    posted_work* previous_ = nullptr;
    posted_work* next_ = nullptr;
    bool queued_ = false;
};

/// The list and the eventfd. push() from any thread, the rest from the scheduler's.
class remote_queue {
  public:
    remote_queue()
        : wake_(sys::check(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "create an eventfd")) {}
    remote_queue(const remote_queue&) = delete;
    remote_queue& operator=(const remote_queue&) = delete;
    ~remote_queue() {
        while (posted_work* work = pop()) work->discard_posted();
    }

    /// Readable while something is in the list.
    int fd() const noexcept { return wake_.get(); }
    /// True when run() would find something; costs no lock.
    bool pending() const noexcept { return pending_.load(std::memory_order_acquire); }

    void push(posted_work& work) noexcept {
        const std::lock_guard lock(mutex_);
        if (work.queued_) return;
        work.queued_ = true;
        work.previous_ = last_;
        work.next_ = nullptr;
        (last_ != nullptr ? last_->next_ : first_) = &work;
        last_ = &work;
        ++size_;
        if (!pending_.exchange(true, std::memory_order_release)) {
            const std::uint64_t one = 1;
            // Fails only when the counter is full, and then it is readable anyhow.
            [[maybe_unused]] const auto written = ::write(wake_.get(), &one, sizeof one);
        }
    }
    /// Takes `work` out again. No other thread may be in push() with it.
    void remove(posted_work& work) noexcept {
        if (!work.queued_) return;
        const std::lock_guard lock(mutex_);
        if (work.queued_) unlink(work);
    }
    /// Runs what is in the list now, without the lock; what that puts into it waits for its turn.
    /// True when something was there.
    bool run() noexcept {
        if (!pending()) return false;
        std::uint64_t count = 0;
        [[maybe_unused]] const auto got = ::read(wake_.get(), &count, sizeof count);
        pending_.store(false, std::memory_order_release);
        std::size_t count_now = 0;
        {
            const std::lock_guard lock(mutex_);
            count_now = size_;
        }
        for (; count_now > 0; --count_now) {
            posted_work* const work = pop();
            if (work == nullptr) break;
            work->run_posted();
        }
        return true;
    }

  private:
    posted_work* pop() noexcept {
        const std::lock_guard lock(mutex_);
        posted_work* const work = first_;
        if (work != nullptr) unlink(*work);
        return work;
    }
    void unlink(posted_work& work) noexcept {
        (work.previous_ != nullptr ? work.previous_->next_ : first_) = work.next_;
        (work.next_ != nullptr ? work.next_->previous_ : last_) = work.previous_;
        work.previous_ = work.next_ = nullptr;
        work.queued_ = false;
        --size_;
    }

    unique_fd wake_;
    std::atomic<bool> pending_{false};
    std::mutex mutex_;
    posted_work* first_ = nullptr;
    posted_work* last_ = nullptr;
    std::size_t size_ = 0;
};

/// A function on the heap, called once or not at all.
template <class Function>
class posted_function final : public posted_work {
  public:
    explicit posted_function(Function function) : function_(std::move(function)) {}
    void run_posted() noexcept override {
        const std::unique_ptr<posted_function> self(this);
        function_();
    }
    void discard_posted() noexcept override { delete this; }

  private:
    Function function_;
};

}  // namespace kumiki::inline v0::detail
