// What is common to everything that a task can wait for: its place in the scheduler's table, the
// task to resume, the stop callback, and the order in which these end.
//
// An operation lives in the frame of the coroutine that awaits it, so it needs no memory of its
// own. The kernel knows it by a slot and a generation and never by its address, and its destructor
// cancels it and waits for the kernel's last word: nothing is written into a freed frame.
#pragma once

#include <cerrno>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <source_location>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <kumiki/async/promise.hpp>
#include <kumiki/async/remote_queue.hpp>
#include <kumiki/core/error.hpp>

namespace kumiki::inline v0::detail {

class operation;

/// The operations in flight, by an id that is not used again: slot index and generation.
class operation_table {
  public:
    std::uint64_t insert(operation& of) {
        if (free_ == slots_.size()) slots_.push_back({nullptr, 1, free_ + 1});
        const std::uint32_t index = free_;
        slot& place = slots_[index];
        free_ = place.next_free;
        place.of = &of;
        ++size_;
        return std::uint64_t{place.generation} << 32 | index;
    }
    /// Null for an id whose operation is over.
    operation* find(std::uint64_t id) const noexcept {
        const auto index = static_cast<std::uint32_t>(id);
        if (index >= slots_.size() || slots_[index].generation != id >> 32) return nullptr;
        return slots_[index].of;
    }
    void erase(std::uint64_t id) noexcept {
        const auto index = static_cast<std::uint32_t>(id);
        slot& place = slots_[index];
        place.of = nullptr;
        if (++place.generation == 0) place.generation = 1;  // generation 0 is for the ring's own
        place.next_free = free_;
        free_ = index;
        --size_;
    }
    std::size_t size() const noexcept { return size_; }
    /// Calls `use` with each operation that is in flight.
    template <class Use>
    void for_each(Use use) const {
        for (const slot& place : slots_)
            if (place.of != nullptr) use(*place.of);
    }
    /// Any operation that is in flight; null when there is none.
    operation* any() const noexcept {
        for (const slot& place : slots_)
            if (place.of != nullptr) return place.of;
        return nullptr;
    }

  private:
    struct slot {
        operation* of;
        std::uint32_t generation;
        std::uint32_t next_free;
    };
    std::vector<slot> slots_;
    std::uint32_t free_ = 0;
    std::size_t size_ = 0;
};

/// The part of a scheduler that operations know.
struct loop_core {
    remote_queue remote;
    ready_queue ready{remote};
    operation_table operations;
    const std::thread::id owner = std::this_thread::get_id();
    std::uint64_t started = 0;     // operations that were begun
    std::uint64_t finished = 0;    // of these, those that are over
    std::uint64_t cancelled = 0;   // of these, those that a stop ended
    std::uint64_t overflowed = 0;  // times that completions did not fit into the ring
    std::uint64_t waits = 0;       // times that the thread slept in the kernel

    bool is_on_thread() const noexcept { return std::this_thread::get_id() == owner; }
    /// What a room above shares between its users on this scheduler, found by the address of a tag;
    /// empty at first. On the scheduler's thread.
    std::weak_ptr<void>& shared(const void* tag) {
        for (auto& [known, place] : shared_)
            if (known == tag) return place;
        return shared_.emplace_back(tag, std::weak_ptr<void>()).second;
    }

  private:
    std::vector<std::pair<const void*, std::weak_ptr<void>>> shared_;
};

/// The base of the awaitables of the scheduler.
class operation : public posted_work {
  public:
    bool await_ready() const noexcept { return false; }
    template <kumiki_promise Promise>
    bool await_suspend(std::coroutine_handle<Promise> handle) {
        return start(handle.promise());
    }

    /// Asks the operation to end early. On the scheduler's thread.
    void request_cancel() noexcept {
        if (!in_flight() || cancel_requested_) return;
        cancel_requested_ = true;
        cancel();
    }
    /// The operation is over: `result` is a count, or a negative errno value.
    void finish(int result) noexcept {
        loop_->operations.erase(id_);
        id_ = 0;
        result_ = result;
        ++loop_->finished;
        if (cancel_requested_ && was_cut_short()) ++loop_->cancelled;
        if (waiter_ != nullptr) loop_->ready.push_back(*std::exchange(waiter_, nullptr));
    }
    /// For the end of the scheduler: waits for the operation's end and forgets the waiting task.
    void abandon() noexcept {
        detach();
        waiter_ = nullptr;
        if (!in_flight()) return;
        if (!loop_->is_on_thread())
            fatal("an operation in flight was destroyed on a thread that is not its scheduler's");
        request_cancel();
        drain();
    }
    std::uint64_t id() const noexcept { return id_; }
    bool in_flight() const noexcept { return id_ != 0; }
    bool cancel_requested() const noexcept { return cancel_requested_; }

    /// For a dump: what is waited for, on which descriptor (-1: none), by whom, and where.
    virtual const char* what() const noexcept = 0;
    virtual int descriptor() const noexcept { return -1; }
    const promise_base* waiter() const noexcept { return waiter_; }
    const std::source_location& where() const noexcept { return where_; }

  protected:
    operation(loop_core& loop, std::source_location where) noexcept : loop_(&loop), where_(where) {}
    /// Only before it was awaited.
    operation(operation&& other) noexcept : loop_(other.loop_), where_(other.where_) {
        if (other.in_flight()) fatal("an operation was moved while it is in flight");
    }
    ~operation() = default;  // a derived destructor calls abandon() first

    /// Begins it though no task waits for it.
    void launch() {
        if (!loop_->is_on_thread())
            fatal("an operation was begun on a thread that is not its scheduler's");
        reset();
        id_ = loop_->operations.insert(*this);
        ++loop_->started;
        try_begin();
    }
    /// Starts it; may finish() at once.
    virtual void begin() = 0;
    /// Makes it finish() soon; not called twice.
    virtual void cancel() noexcept = 0;
    /// Returns when it is over.
    virtual void drain() noexcept = 0;

    /// The result, in the awaiting task. Errors: `cancelled`.
    int take_result() {
        detach();
        if (cancel_requested_ && was_cut_short()) throw kumiki::cancelled();
        return result_;
    }
    /// As above, with negative results thrown as kumiki::error.
    int take_checked(const char* name, int fd) {
        const int result = take_result();
        if (result >= 0) return result;
        throw error(-result, {.operation = name, .object = "descriptor " + std::to_string(fd)},
                    where_);
    }
    loop_core& loop() const noexcept { return *loop_; }
    int raw_result() const noexcept { return result_; }
    /// False when await_ready() made waiting needless.
    bool was_begun() const noexcept { return awaited_; }
    /// Before it is awaited again: forgets the last time.
    void reset() noexcept {
        cancel_requested_ = false;
        result_ = -ECANCELED;
    }

  private:
    struct canceller {
        operation* of;
        void operator()() const noexcept {
            if (of->loop_->is_on_thread())
                of->request_cancel();
            else
                of->loop_->remote.push(*of);
        }
    };

    bool start(promise_base& task) {
        if (!loop_->is_on_thread())
            fatal("an operation was awaited on a thread that is not its scheduler's");
        if (task.queue != &loop_->ready)
            fatal("an operation of one scheduler was awaited in a task of another");
        if (std::exchange(awaited_, true)) fatal("an operation was awaited twice");
        if (task.stop->stop_requested()) {
            cancel_requested_ = true;
            result_ = -ECANCELED;
            return false;
        }
        id_ = loop_->operations.insert(*this);
        ++loop_->started;
        waiter_ = &task;
        try_begin();
        if (in_flight() && task.stop->stop_possible())
            on_stop_.emplace(*task.stop, canceller{this});
        return true;
    }
    void try_begin() {
        try {
            begin();
        } catch (...) {
            loop_->operations.erase(id_);
            id_ = 0;
            ++loop_->finished;
            waiter_ = nullptr;
            throw;
        }
    }
    bool was_cut_short() const noexcept { return result_ == -ECANCELED || result_ == -EINTR; }
    /// No stop arrives after this, from any thread.
    void detach() noexcept {
        if (!on_stop_) return;
        on_stop_.reset();
        loop_->remote.remove(*this);
    }
    void run_posted() noexcept override { request_cancel(); }
    void discard_posted() noexcept override {}

    loop_core* loop_;
    promise_base* waiter_ = nullptr;
    std::uint64_t id_ = 0;
    int result_ = -ECANCELED;
    bool cancel_requested_ = false;
    bool awaited_ = false;
    std::source_location where_;
    std::optional<std::stop_callback<canceller>> on_stop_;
};

}  // namespace kumiki::inline v0::detail
