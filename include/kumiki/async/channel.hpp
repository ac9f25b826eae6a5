// channel<T>: values from some tasks to others, bounded, with a say in what happens when it is full.
//
//   channel<event> events(io, 64, channel_overflow::drop_oldest);
//   co_await events.send(e);                                    // in any number of tasks
//   while (auto e = co_await events.receive()) use(*e);         // nothing: closed and empty
//
// Memory for `capacity` values is taken once, nothing per value and nothing per wait. First come,
// first served on both sides; each value is received once. For one scheduler (post() to it from
// other threads). Left out: a capacity of zero (both sides would have to meet).
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <source_location>
#include <type_traits>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/wait_list.hpp>
#include <kumiki/core/error.hpp>

namespace kumiki::inline v0 {

/// What happens to a value that is sent to a full channel.
enum class channel_overflow : std::uint8_t {
    wait,  ///< the sender waits for room
    drop_oldest,  ///< the value that has waited longest is dropped
    drop_newest,  ///< the value that is being sent is dropped
    fail,  ///< the sender is told at once
};

/// What became of a value that was sent.
enum class channel_outcome : std::uint8_t {
    sent,  ///< it is in the channel, or received already
    displaced,  ///< as sent; the oldest value was dropped for it
    dropped,  ///< it was dropped
    full,  ///< it was not taken: there is no room
    closed,  ///< it was not taken: the channel is closed
};

/// A queue between tasks of one scheduler, used on its thread.
///
/// Lifetime: must outlive the tasks that wait on it.
template <class T>
class channel {
    static_assert(std::is_nothrow_move_constructible_v<T>,
                  "a value that may fail on its way would be lost: send a std::unique_ptr");

  public:
    /// Errors: invalid_input for a capacity of zero.
    channel(scheduler& io, std::size_t capacity, channel_overflow overflow = channel_overflow::wait)
        : loop_(&io.loop()), capacity_(capacity), overflow_(overflow) {
        if (capacity == 0) throw invalid_input("capacity of a channel", "0", "It is 1 or more.");
        values_ = std::make_unique<std::optional<T>[]>(capacity);
    }
    channel(const channel&) = delete;
    channel& operator=(const channel&) = delete;

    class [[nodiscard]] send_awaiter : public detail::wait_operation {
      public:
        send_awaiter(channel& to, T value, std::source_location where) noexcept
            : wait_operation(*to.loop_, to.senders_, where), to_(&to), value_(std::move(value)) {}
        bool await_ready() noexcept {
            outcome_ = to_->offer(value_);
            return outcome_ != channel_outcome::full || to_->overflow_ != channel_overflow::wait;
        }
        channel_outcome await_resume() {
            if (was_begun()) take_result();
            return outcome_;
        }
        const char* what() const noexcept override { return "send to a channel"; }

      private:
        friend channel;
        channel* to_;
        T value_;
        channel_outcome outcome_ = channel_outcome::full;
    };
    class [[nodiscard]] receive_awaiter : public detail::wait_operation {
      public:
        receive_awaiter(channel& from, std::source_location where) noexcept
            : wait_operation(*from.loop_, from.receivers_, where), from_(&from) {}
        receive_awaiter(receive_awaiter&&) noexcept = default;
        ~receive_awaiter() {
            abandon();
            if (std::exchange(has_claim_, false)) from_->give_back_claim();
        }
        bool await_ready() const noexcept { return from_->unclaimed() > 0 || from_->closed_; }
        std::optional<T> await_resume() {
            if (was_begun()) take_result();
            if (std::exchange(has_claim_, false))
                --from_->claimed_;
            else if (from_->unclaimed() == 0)
                return std::nullopt;
            return from_->pop();
        }
        const char* what() const noexcept override { return "receive from a channel"; }

      private:
        friend channel;
        channel* from_;
        bool has_claim_ = false;  // one of the values is for this one, who was woken for it
    };

    /// Sends `value`; waits for room with channel_overflow::wait only. Name the result or discard it.
    /// Errors: `cancelled` when the task is stopped while it waits: the value was not sent then.
    send_awaiter send(T value,
                      std::source_location where = std::source_location::current()) noexcept {
        return {*this, std::move(value), where};
    }
    /// As send(), without waiting: `full` in its place, and `value` is as it was.
    [[nodiscard]] channel_outcome try_send(T&& value) noexcept { return offer(value); }
    /// Yields the next value; nothing once the channel is closed and empty.
    /// Errors: `cancelled` when the task is stopped while it waits: no value is lost by that.
    receive_awaiter receive(std::source_location where = std::source_location::current()) noexcept {
        return {*this, where};
    }
    /// The next value that nobody waits for, if there is one.
    [[nodiscard]] std::optional<T> try_receive() noexcept {
        if (unclaimed() == 0) return std::nullopt;
        return pop();
    }
    /// No value is taken any more: senders that wait get `closed`, receivers what is left.
    void close() noexcept {
        closed_ = true;
        while (detail::wait_operation* const first = senders_.front()) {
            static_cast<send_awaiter*>(first)->outcome_ = channel_outcome::closed;
            first->wake();
        }
        receivers_.wake_all();  // who waits has no value coming
    }

    bool is_closed() const noexcept { return closed_; }
    /// How many values are in the channel.
    std::size_t size() const noexcept { return size_; }
    std::size_t capacity() const noexcept { return capacity_; }
    /// How many values were dropped because there was no room.
    std::uint64_t dropped() const noexcept { return dropped_; }

  private:
    std::size_t unclaimed() const noexcept { return size_ - claimed_; }
    channel_outcome offer(T& value) noexcept {
        if (closed_) return channel_outcome::closed;
        if (size_ < capacity_) {  // then nobody waits for room
            push(std::move(value));
            return channel_outcome::sent;
        }
        switch (overflow_) {
        case channel_overflow::drop_oldest:
            take_first();
            push(std::move(value));
            ++dropped_;
            return channel_outcome::displaced;
        case channel_overflow::drop_newest:
            ++dropped_;
            return channel_outcome::dropped;
        case channel_overflow::wait:
        case channel_overflow::fail:
            break;
        }
        return channel_outcome::full;
    }
    void push(T&& value) noexcept {
        values_[(first_ + size_) % capacity_].emplace(std::move(value));
        ++size_;
        wake_receiver();
    }
    T take_first() noexcept {
        std::optional<T>& place = values_[first_];
        T value = std::move(*place);
        place.reset();
        first_ = (first_ + 1) % capacity_;
        --size_;
        return value;
    }
    T pop() noexcept {
        T value = take_first();
        if (detail::wait_operation* const first = senders_.front()) {
            auto& sender = static_cast<send_awaiter&>(*first);
            sender.outcome_ = channel_outcome::sent;
            push(std::move(sender.value_));
            sender.wake();
        }
        return value;
    }
    void wake_receiver() noexcept {
        detail::wait_operation* const first = receivers_.front();
        if (first == nullptr || unclaimed() == 0) return;
        static_cast<receive_awaiter*>(first)->has_claim_ = true;
        ++claimed_;
        first->wake();
    }
    /// The frame of a receiver that was woken died before it was resumed.
    void give_back_claim() noexcept {
        --claimed_;
        wake_receiver();
    }

    detail::loop_core* loop_;
    const std::size_t capacity_;
    const channel_overflow overflow_;
    std::unique_ptr<std::optional<T>[]> values_;
    std::size_t first_ = 0;
    std::size_t size_ = 0;
    std::size_t claimed_ = 0;
    std::uint64_t dropped_ = 0;
    bool closed_ = false;
    detail::wait_list senders_;
    detail::wait_list receivers_;
};

}  // namespace kumiki::inline v0
