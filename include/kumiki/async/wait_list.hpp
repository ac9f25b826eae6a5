// Waiting for what another task does: the common part of the locks, events and channels of async/.
//
// An awaitable of these is an operation like those of the kernel: it is stopped the same way, also
// from another thread, it is seen in a dump, and it lies in the frame of the coroutine that awaits
// it, so that waiting needs no memory. First come, first served.
// Left out: waiting on one list from several schedulers (they belong to one thread, like these).
#pragma once

#include <cerrno>
#include <source_location>
#include <utility>

#include <kumiki/async/operation.hpp>

namespace kumiki::inline v0::detail {

class wait_list;

/// One task's wait. Derived: await_ready() says whether it has to wait, await_resume() calls
/// take_result() first and takes what it was woken for then.
class wait_operation : public operation {
  public:
    /// Ends the wait: the task is resumed soon. It must be in a list.
    inline void wake() noexcept;

  protected:
    wait_operation(loop_core& loop, wait_list& in, std::source_location where) noexcept
        : operation(loop, where), list_(&in) {}
    /// Only before it was awaited.
    wait_operation(wait_operation&& other) noexcept
        : operation(std::move(other)), list_(other.list_) {}
    ~wait_operation() { abandon(); }

    /// Throws `cancelled` when a stop ended the wait before it was woken.
    void take_result() { operation::take_result(); }
    /// True when it was woken, in a destructor too: what it was woken for is to be handed on when
    /// nobody took it.
    bool was_woken() const noexcept { return woken_; }

  private:
    friend class wait_list;
    inline void begin() override;
    inline void cancel() noexcept override;
    void drain() noexcept override {}  // cancel() ends it at once

    wait_list* list_;
    wait_operation* previous_ = nullptr;
    wait_operation* next_ = nullptr;
    bool woken_ = false;
};

/// Those who wait, in the order in which they came. Must outlive them.
class wait_list {
  public:
    wait_list() = default;
    wait_list(const wait_list&) = delete;
    wait_list& operator=(const wait_list&) = delete;
    ~wait_list() {
        if (first_ != nullptr) fatal("something was destroyed while tasks wait for it");
    }

    bool empty() const noexcept { return first_ == nullptr; }
    /// Null when nobody waits.
    wait_operation* front() const noexcept { return first_; }
    /// Wakes the first; false when nobody waits.
    bool wake_one() noexcept {
        if (first_ == nullptr) return false;
        first_->wake();
        return true;
    }
    void wake_all() noexcept {
        while (wake_one()) {}
    }

  private:
    friend class wait_operation;
    void push_back(wait_operation& of) noexcept {
        of.previous_ = last_;
        of.next_ = nullptr;
        (last_ != nullptr ? last_->next_ : first_) = &of;
        last_ = &of;
    }
    void remove(wait_operation& of) noexcept {
        (of.previous_ != nullptr ? of.previous_->next_ : first_) = of.next_;
        (of.next_ != nullptr ? of.next_->previous_ : last_) = of.previous_;
    }

    wait_operation* first_ = nullptr;
    wait_operation* last_ = nullptr;
};

inline void wait_operation::wake() noexcept {
    list_->remove(*this);
    woken_ = true;
    finish(0);
}
inline void wait_operation::begin() {
    woken_ = false;
    list_->push_back(*this);
}
inline void wait_operation::cancel() noexcept {
    list_->remove(*this);
    finish(-ECANCELED);
}

}  // namespace kumiki::inline v0::detail
