// container_pool: containers that are started ahead, up to the last step before their command, and get
// it when one is needed.
//
//   container_pool pool(io, {.rootfs = rootfs::overlay("/srv/images/worker"), .limits = {...}},
//                       {.ready = 8});
//   command_changes work{.args = {"work", "--once"}};
//   auto box = co_await pool.start(std::move(work));      // a container like any other
//
// A container that is ready has all that it will have: namespaces, network with its policy, cgroup
// with its limits, root filesystem, user, capabilities, filter. In it waits a small program that has
// no more rights than the command will have (waiter.hpp). Nothing is ever given back to a pool: what
// a command has used goes with its container, so nothing has to be scrubbed (docs/adr/0018).
// It is as old as its making: the host's resolv.conf, the ids of a user by name, what lies below a bind
// mount or an overlay are those of then. Change a layer under a new path and not in place, or renew().
// In a network with names, and by a published port, what waits can be found before it has a command.
// Kernel: as container.hpp. Left out: other machines than x86-64; changes of more than the command,
// its environment and its standard descriptors.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/container/container.hpp>
#include <kumiki/container/pool_spec.hpp>
#include <kumiki/container/ready_containers.hpp>
#include <kumiki/container/spec.hpp>

namespace kumiki::inline v0 {

/// Keeps containers ready. Used on its scheduler's thread. Movable.
///
/// Lifetime: may go at any time, also while a start of it is under way, which then comes to its end;
/// before or after the scheduler. What is ready ends with it; what was started does not.
class container_pool {
  public:
    /// Begins to make containers of `spec`, as soon as the calling task waits for something. Those
    /// of a spec with a name are called NAME-c0123456789ab, with other digits each. The command of
    /// `spec` is that of starts which say no other; its standard descriptors must be open then.
    ///
    /// Errors: invalid_input for what a pool cannot have: an init, labels, a filter with notify
    /// rules, a pid namespace that is not each one's own; what only one container could have
    /// (addresses, devices, an overlay's upper directory, a port that is not left to the kernel);
    /// aliases; and what container_spec::validate() says.
    template <class = void>
    container_pool(scheduler& io, container_spec spec, pool_options options = {})
        : state_(std::make_shared<detail::ready_containers>(io, std::move(spec), options)) {
        state_->open();
    }
    container_pool(container_pool&&) noexcept = default;
    container_pool& operator=(container_pool&&) = delete;
    ~container_pool() {
        if (state_) state_->close();
    }

    /// Starts a command in a container that is ready; when none is, in one that is made for it now,
    /// which takes as long as container::start(). A container that ended while it waited is passed
    /// over. Its start_timeline() is that of this call.
    ///
    /// Errors: as container::start(), with nothing left behind.
    template <class = void>
    task<container> start(command_changes changes = {}) {
        return start_with(state_, std::move(changes));
    }
    /// Waits until all are ready that should be, or the pool goes.
    ///
    /// Errors: what the making of one threw. After such a failure nothing is made until the next
    /// start() or this; the observer is told of each.
    template <class = void>
    task<void> filled() {
        return detail::ready_containers::fill(state_);
    }

    /// Ends what is ready and has it made anew: for when something has changed that a container has
    /// from its making on (see above). One that is being made just now is not.
    void renew() noexcept { state_->renew(); }

    /// How many wait for a command; of one that ended, the scheduler tells in its next turn.
    std::size_t ready() const noexcept { return state_->ready(); }
    pool_counters counters() const noexcept { return state_->counters(); }

  private:
    template <class = void>
    static task<container> start_with(std::shared_ptr<detail::ready_containers> state,
                                      command_changes changes) {
        process_spec process = state->process_with(std::move(changes));
        auto parts = co_await detail::ready_containers::start(state, std::move(process));
        co_return container(state->io(), std::move(parts));
    }

    std::shared_ptr<detail::ready_containers> state_;
};

}  // namespace kumiki::inline v0
