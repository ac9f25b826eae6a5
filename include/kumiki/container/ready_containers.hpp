// What stands behind a container_pool (pool.hpp): the containers that are ready, the tasks that make
// them, and a start in one of them.
//
// A maker waits for no time: it is woken when a start has taken a container, and after a failure when
// somebody asks again.
#pragma once

#include <poll.h>
#include <signal.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/async/async_event.hpp>
#include <kumiki/async/background_task.hpp>
#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/container/container_parts.hpp>
#include <kumiki/container/hand_over.hpp>
#include <kumiki/container/launch.hpp>
#include <kumiki/container/pool_spec.hpp>
#include <kumiki/container/spec.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/scope_exit.hpp>

namespace kumiki::inline v0 {

namespace detail {

/// The containers of a pool, those that are being made, and who makes them. Shared with the starts
/// that are under way when the pool goes.
class ready_containers {
  public:
    ready_containers(scheduler& io, container_spec spec, pool_options options)
        : io_(&io), spec_(std::move(spec)), options_(options), wanted_(io), changed_(io) {
        require_poolable(spec_, options_);
        described_ = spec_.process;
        if (spec_.process.args.empty()) spec_.process.args = {"ready"};
        if (!spec_.process.terminal)
            spec_.process.stdio = {stdio::null(), stdio::null(), stdio::null()};
        named(spec_).validate();
    }
    ready_containers(const ready_containers&) = delete;
    ready_containers& operator=(const ready_containers&) = delete;
    ~ready_containers() { close(); }

    template <class = void>
    void open() {
        for (std::size_t i = 0; i < options_.at_once; ++i)
            makers_.push_back(std::make_unique<background_task>(*io_, keep_full(this)));
    }
    /// What is being made is given up, what is ready is ended.
    void close() noexcept {
        closed_ = true;
        makers_.clear();
        kill_all(ready_);
        pulse(changed_);
    }

    /// Ends what is ready; the makers replace it.
    void renew() noexcept {
        std::deque<ready_pointer> old = std::exchange(ready_, {});
        want();
        kill_all(old);
    }

    /// A container with everything but its command, which ends with this.
    struct ready_container {
        explicit ready_container(std::unique_ptr<container_parts> made) : parts(std::move(made)) {}
        ready_container(const ready_container&) = delete;
        ready_container& operator=(const ready_container&) = delete;
        ~ready_container() {
            watch.reset();
            if (parts) release_quietly([&] { parts->kill_and_release(); });
        }
        std::unique_ptr<container_parts> parts;
        bool has_ended = false;  ///< from outside, while it waited
        std::optional<background_task> watch;  ///< until it is taken
    };
    using ready_pointer = std::unique_ptr<ready_container>;

    /// The process of a start. Errors: invalid_input.
    process_spec process_with(command_changes changes) const {
        return change_process(described_, std::move(changes));
    }
    /// Starts `process` in a container that is ready, or that is made for it.
    template <class = void>
    static task<std::unique_ptr<container_parts>> start(std::shared_ptr<ready_containers> self,
                                                        process_spec process) {
        // Not before this start is over: making the next one takes time from the same thread.
        const scope_exit refill([&]() noexcept { self->want(); });
        timeline line;
        handed_stdio files = handed_stdio::of(process);
        handed_command command(process, files.files);
        line.mark("command");
        for (;;) {
            self->drop_ended();
            const bool is_warm = !self->ready_.empty();
            ready_pointer box;
            if (is_warm) {
                box = std::move(self->ready_.front());
                self->ready_.pop_front();
            } else {
                box = co_await self->make();
            }
            box->watch.reset();
            line.mark(is_warm ? "take" : "make");
            container_parts& parts = *box->parts;
            const std::int64_t sent = timeline::now();
            handing_result seen;
            if (command.send(parts.waiter.get())) {
                auto in_time = co_await with_timeout(*self->io_, parts.start_limit,
                                                     await_execve(*self->io_, parts.waiter.get()));
                seen = in_time.value_or(handing_result{handing::late, ETIMEDOUT});
            }
            if (seen.what == handing::lost && is_warm) {
                ++self->counters_.lost;
                continue;
            }
            ++(is_warm ? self->counters_.warm : self->counters_.cold);
            if (seen.what != handing::executed)
                throw error_of_handing(seen, process.args.front(), parts.name);
            line.mark("execve");
            parts.waiter.reset();
            parts.pipes = standard_pipes(*self->io_, std::move(files.pipes));
            parts.process = std::move(process);
            parts.executed = sent;
            parts.line = std::move(line);
            co_return std::move(box->parts);
        }
    }
    /// Waits until as many are ready as should be. Errors: what the making of one threw.
    template <class = void>
    static task<void> fill(std::shared_ptr<ready_containers> self) {
        self->drop_ended();
        self->want();
        while (!self->closed_ && self->ready_.size() < self->options_.ready) {
            if (self->failure_) std::rethrow_exception(self->failure_);
            co_await self->changed_.wait();
        }
    }

    scheduler& io() const noexcept { return *io_; }
    std::size_t ready() const noexcept { return ready_.size(); }
    const pool_counters& counters() const noexcept { return counters_; }

  private:
    /// All at once, then one after the other.
    static void kill_all(std::deque<ready_pointer>& all) noexcept {
        for (const auto& each : all)
            release_quietly([&] { sys::send_signal(each->parts->pidfd.get(), SIGKILL); });
        all.clear();
    }
    /// Has one that ends while it waits replaced: its end of the control socket closes.
    template <class = void>
    static task<void> watch_end(scheduler& io, ready_container& box, ready_containers* self) {
        co_await io.poll(box.parts->waiter.get(), POLLIN);
        box.has_ended = true;
        pulse(self->wanted_);
    }
    /// What ends again and again is not made for ever: only until twice as many have ended as there
    /// should be, without a start or filled() in between.
    void drop_ended() {
        const auto ended = std::erase_if(ready_, [](const auto& each) { return each->has_ended; });
        counters_.lost += ended;
        lost_in_a_row_ += ended;
        if (lost_in_a_row_ <= 2 * options_.ready || failure_) return;
        failure_ = std::make_exception_ptr(error_of_handing({}, {}, spec_.name));
        report_notice("containers that are made ahead end while they wait");
        pulse(changed_);
    }
    /// Whether there is something for a maker to do.
    bool lacks_one() {
        drop_ended();
        return !failure_ && ready_.size() + making_ < options_.ready;
    }
    static void pulse(async_event& event) noexcept {
        event.set();
        event.reset();
    }
    /// Has the makers look whether one is missing; one that failed is tried again.
    void want() noexcept {
        failure_ = nullptr;
        lost_in_a_row_ = 0;
        pulse(wanted_);
    }
    template <class = void>
    task<ready_pointer> make() {
        auto parts = co_await launch(*io_, named(spec_), {}, launch_end::ready);
        co_return std::make_unique<ready_container>(std::move(parts));
    }
    /// `spec` with a name that no other container has, also none that an earlier pool has left.
    static container_spec named(container_spec spec) {
        if (!spec.name.empty()) spec.name += '-' + make_up_name();
        return spec;
    }
    /// One maker. Destroyed with the pool, wherever it is.
    template <class = void>
    static task<void> keep_full(ready_containers* self) {
        for (;;) {
            while (!self->lacks_one()) co_await self->wanted_.wait();
            ++self->making_;
            const scope_exit made([&]() noexcept {
                --self->making_;
                pulse(self->changed_);
            });
            try {
                auto box = co_await self->make();
                box->watch.emplace(*self->io_, watch_end(*self->io_, *box, self));
                self->ready_.push_back(std::move(box));
                ++self->counters_.prepared;
            } catch (const std::exception& failure) {
                self->failure_ = std::current_exception();
                ++self->counters_.failed;
                report_notice(std::string("a container could not be made ahead: ") +
                              failure.what());
            }
        }
    }

    scheduler* io_;
    container_spec spec_;
    process_spec described_;
    pool_options options_;
    std::size_t making_ = 0;
    std::size_t lost_in_a_row_ = 0;
    std::exception_ptr failure_;  ///< of the last that was to be made ahead
    pool_counters counters_;
    async_event wanted_;  ///< somebody may be missing
    async_event changed_;  ///< one was made, or could not be
    std::deque<ready_pointer> ready_;
    std::vector<std::unique_ptr<background_task>> makers_;
    bool closed_ = false;
};

}  // namespace detail
}  // namespace kumiki::inline v0
