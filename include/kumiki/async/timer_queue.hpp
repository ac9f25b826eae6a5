// The timers of a scheduler: a binary heap of deadlines, of which the kernel is told the first.
//
// So a timer costs no system call, and cancelling one leaves nothing in the kernel. The clock is
// CLOCK_MONOTONIC, which stands still while the machine is suspended.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

namespace kumiki::inline v0::detail {

using clock = std::chrono::steady_clock;

/// Something that happens at a point in time.
class timer {
  public:
    timer() = default;
    timer(const timer&) = delete;
    timer& operator=(const timer&) = delete;
    /// Once, on the scheduler's thread, when the time has come.
    virtual void on_time() noexcept = 0;

  protected:
    ~timer() = default;

  private:
    friend class timer_queue;
    static constexpr std::size_t nowhere = std::numeric_limits<std::size_t>::max();
    clock::time_point when_{};
    std::size_t place_ = nowhere;
};

class timer_queue {
  public:
    timer_queue() = default;
    timer_queue(const timer_queue&) = delete;
    timer_queue& operator=(const timer_queue&) = delete;
    /// Timers may outlive it: the frame of a task may outlive its scheduler.
    ~timer_queue() {
        for (timer* const each : heap_) each->place_ = timer::nowhere;
    }
    void insert(timer& of, clock::time_point when) {
        heap_.push_back(&of);
        of.when_ = when;
        of.place_ = heap_.size() - 1;
        rise(of.place_);
    }
    void erase(timer& of) noexcept {
        if (of.place_ == timer::nowhere) return;
        const std::size_t place = std::exchange(of.place_, timer::nowhere);
        timer* const last = heap_.back();
        heap_.pop_back();
        if (last == &of) return;
        put(place, *last);
        rise(place);
        sink(last->place_);
    }
    /// The time until the first is due; nothing when there is none.
    std::optional<std::chrono::nanoseconds> until_first() const {
        if (heap_.empty()) return std::nullopt;
        return std::max(std::chrono::nanoseconds(heap_.front()->when_ - clock::now()),
                        std::chrono::nanoseconds(0));
    }
    std::optional<clock::time_point> first() const {
        if (heap_.empty()) return std::nullopt;
        return heap_.front()->when_;
    }
    /// Fires what is due.
    void run() {
        if (heap_.empty()) return;
        const auto now = clock::now();
        while (!heap_.empty() && heap_.front()->when_ <= now) {
            timer& due = *heap_.front();
            erase(due);
            due.on_time();
        }
    }

  private:
    void put(std::size_t place, timer& of) noexcept {
        heap_[place] = &of;
        of.place_ = place;
    }
    bool before(std::size_t a, std::size_t b) const noexcept {
        return heap_[a]->when_ < heap_[b]->when_;
    }
    void exchange(std::size_t a, std::size_t b) noexcept {
        timer* const first = heap_[a];
        put(a, *heap_[b]);
        put(b, *first);
    }
    void rise(std::size_t place) noexcept {
        for (; place > 0 && before(place, (place - 1) / 2); place = (place - 1) / 2)
            exchange(place, (place - 1) / 2);
    }
    void sink(std::size_t place) noexcept {
        for (;;) {
            std::size_t first = place;
            for (const std::size_t child : {2 * place + 1, 2 * place + 2})
                if (child < heap_.size() && before(child, first)) first = child;
            if (first == place) return;
            exchange(place, first);
            place = first;
        }
    }

    std::vector<timer*> heap_;
};

/// `from` plus `span`, without overflow.
inline clock::time_point deadline_after(clock::time_point from,
                                        std::chrono::nanoseconds span) noexcept {
    return span > clock::time_point::max() - from ? clock::time_point::max() : from + span;
}

}  // namespace kumiki::inline v0::detail
