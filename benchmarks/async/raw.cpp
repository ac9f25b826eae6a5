// The floor: state machines written by hand on one ring, with the set-up flags that kumiki uses.
//
// Whatever becomes possible while completions are looked at is handed over with the next wait. A
// party of a round trip does what a task would do: its read begins when its write is done. Where no
// kernel is involved (ready and spawned tasks) the floor is the least coroutine that does it:
// lazy, resumed by symmetric transfer, without errors, stops or names.
#include <poll.h>
#include <sys/eventfd.h>

#include <array>
#include <coroutine>
#include <cstdlib>
#include <thread>
#include <utility>

#include <liburing.h>

#include "side.hpp"

namespace bench {
namespace {

class raw_ring {
  public:
    raw_ring() {
        io_uring_params params{};
        params.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL |
                       IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SINGLE_ISSUER |
                       IORING_SETUP_DEFER_TASKRUN;
        params.cq_entries = 1024;
        check(io_uring_queue_init_params(256, &ring_, &params), "set up io_uring");
        io_uring_register_ring_fd(&ring_);
        io_uring_probe* const probe = io_uring_get_probe_ring(&ring_);
        has_waitid_ = probe != nullptr && io_uring_opcode_supported(probe, op_waitid) != 0;
        std::free(probe);
    }
    raw_ring(const raw_ring&) = delete;
    raw_ring& operator=(const raw_ring&) = delete;
    ~raw_ring() { io_uring_queue_exit(&ring_); }

    io_uring_sqe* entry(std::uint64_t id) {
        io_uring_sqe* made = io_uring_get_sqe(&ring_);
        while (made == nullptr) {
            check(io_uring_submit(&ring_), "submit");
            made = io_uring_get_sqe(&ring_);
        }
        made->user_data = id;
        return made;
    }
    void read(std::uint64_t id, int fd, char& to) {
        io_uring_sqe* const at = entry(id);
        io_uring_prep_read(at, fd, &to, 1, static_cast<__u64>(-1));
        at->user_data = id;
    }
    void write(std::uint64_t id, int fd, const char& from) {
        io_uring_sqe* const at = entry(id);
        io_uring_prep_write(at, fd, &from, 1, static_cast<__u64>(-1));
        at->user_data = id;
    }
    void timeout(std::uint64_t id, __kernel_timespec& span) {
        io_uring_sqe* const at = entry(id);
        io_uring_prep_timeout(at, &span, 0, 0);
        at->user_data = id;
    }
    void child(std::uint64_t id, int pidfd, siginfo_t& info) {
        io_uring_sqe* const at = entry(id);
        if (has_waitid_) {
            io_uring_prep_rw(op_waitid, at, pidfd, nullptr, pidfd_id_type, 0);
            at->file_index = WEXITED;
            at->addr2 = reinterpret_cast<std::uintptr_t>(&info);
        } else {
            io_uring_prep_poll_add(at, pidfd, POLLIN);
        }
        at->user_data = id;
    }
    void collect(int pidfd) {
        if (!has_waitid_) kumiki::sys::wait_blocking(pidfd);
    }
    /// Hands over, waits, and calls `use` with the id and the result of each completion.
    template <class Use>
    void wait(Use use) {
        check(io_uring_submit_and_wait(&ring_, 1), "wait for io_uring");
        unsigned head = 0;
        unsigned count = 0;
        io_uring_cqe* completion = nullptr;
        io_uring_for_each_cqe(&ring_, head, completion) {
            use(completion->user_data, completion->res);
            ++count;
        }
        io_uring_cq_advance(&ring_, count);
    }

  private:
    static constexpr int op_waitid = 50;  // IORING_OP_WAITID, 6.7: not in liburing 2.3
    static constexpr unsigned pidfd_id_type = 3;  // P_PIDFD

    static void check(int result, const char* what) {
        if (result >= 0 || result == -EINTR) return;
        errno = -result;
        kumiki::sys::check(-1, what);
    }

    io_uring ring_{};
    bool has_waitid_ = false;
};

/// The least coroutine that can be awaited.
class plain_task {
  public:
    struct promise_type {
        plain_task get_return_object() noexcept {
            return plain_task(std::coroutine_handle<promise_type>::from_promise(*this));
        }
        std::suspend_always initial_suspend() const noexcept { return {}; }
        auto final_suspend() const noexcept { return at_end{}; }
        void return_value(int to) noexcept { value = to; }
        void unhandled_exception() const noexcept { std::abort(); }
        std::coroutine_handle<> continuation = std::noop_coroutine();
        int value = 0;
    };

    plain_task(plain_task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    plain_task& operator=(plain_task&&) = delete;
    ~plain_task() {
        if (handle_) handle_.destroy();
    }
    bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> parent) noexcept {
        handle_.promise().continuation = parent;
        return handle_;
    }
    int await_resume() const noexcept { return handle_.promise().value; }
    void resume() const { handle_.resume(); }
    /// To its end, and frees it.
    void run() {
        handle_.resume();
        std::exchange(handle_, nullptr).destroy();
    }

  private:
    struct at_end {
        bool await_ready() const noexcept { return false; }
        std::coroutine_handle<> await_suspend(
            std::coroutine_handle<promise_type> ended) const noexcept {
            return ended.promise().continuation;
        }
        void await_resume() const noexcept {}
    };
    explicit plain_task(std::coroutine_handle<promise_type> handle) noexcept : handle_(handle) {}

    std::coroutine_handle<promise_type> handle_;
};

[[gnu::noinline]] plain_task ready() { co_return 1; }

plain_task await_many(std::size_t count) {
    int sum = 0;
    for (; count > 0; --count) {
        plain_task one = ready();
        sum += co_await one;
    }
    co_return sum;
}

class raw_side final : public side {
  public:
    raw_side() : echo_([this] { echo(); }) {}
    ~raw_side() override {
        far_.there[1].reset();
        echo_.join();
    }

    double ready_tasks(std::size_t count) override {
        const stopwatch time;
        const plain_task all = await_many(count);
        all.resume();
        if (std::cmp_not_equal(all.await_resume(), count)) std::abort();
        return time.nanoseconds();
    }
    double spawned_tasks(std::size_t count) override {
        const stopwatch time;
        std::vector<plain_task> queue;
        queue.reserve(count);
        for (std::size_t i = 0; i < count; ++i) queue.push_back(ready());
        for (plain_task& each : queue) each.run();
        return time.nanoseconds();
    }
    double timers_in_turn(std::size_t count) override {
        __kernel_timespec span{};
        const stopwatch time;
        for (; count > 0; --count) {
            ring_.timeout(0, span);
            ring_.wait([](std::uint64_t, int) {});
        }
        return time.nanoseconds();
    }
    double timers_at_once(std::size_t count) override {
        std::vector<__kernel_timespec> spans(count);
        const stopwatch time;
        for (std::size_t i = 0; i < count; ++i) {
            spans[i].tv_nsec = timer_span(i).count();
            ring_.timeout(i, spans[i]);
        }
        for (std::size_t left = count; left > 0;) ring_.wait([&](std::uint64_t, int) { --left; });
        return time.nanoseconds();
    }
    double round_trips(std::size_t count) override {
        enum : std::uint64_t { sent, answered, received, echoed };
        char near = 'x';
        char far = 0;
        std::size_t to_come = count;  // answers
        std::size_t to_echo = count;
        const stopwatch time;
        ring_.read(received, near_.there[0].get(), far);
        ring_.write(sent, near_.there[1].get(), near);
        while (to_come > 0 || to_echo > 0) {
            ring_.wait([&](std::uint64_t id, int result) {
                if (result != 1) std::abort();
                switch (id) {
                case sent:
                    return ring_.read(answered, near_.back[0].get(), near);
                case answered:
                    if (--to_come > 0) ring_.write(sent, near_.there[1].get(), near);
                    return;
                case received:
                    return ring_.write(echoed, near_.back[1].get(), far);
                default:
                    if (--to_echo > 0) ring_.read(received, near_.there[0].get(), far);
                }
            });
        }
        return time.nanoseconds();
    }
    double round_trips_across(std::size_t count) override {
        enum : std::uint64_t { sent, answered };
        char byte = 'x';
        const stopwatch time;
        ring_.write(sent, far_.there[1].get(), byte);
        while (count > 0) {
            ring_.wait([&](std::uint64_t id, int result) {
                if (result != 1) std::abort();
                if (id == sent)
                    ring_.read(answered, far_.back[0].get(), byte);
                else if (--count > 0)
                    ring_.write(sent, far_.there[1].get(), byte);
            });
        }
        return time.nanoseconds();
    }
    double children_in_turn(std::span<const int> pidfds) override {
        siginfo_t info{};
        const stopwatch time;
        for (const int pidfd : pidfds) {
            ring_.child(0, pidfd, info);
            ring_.wait([&](std::uint64_t, int result) {
                if (result < 0) std::abort();
            });
            ring_.collect(pidfd);
        }
        return time.nanoseconds();
    }
    double children_at_once(std::span<const int> pidfds) override {
        std::vector<siginfo_t> infos(pidfds.size());
        const stopwatch time;
        for (std::size_t i = 0; i < pidfds.size(); ++i) ring_.child(i, pidfds[i], infos[i]);
        for (std::size_t left = pidfds.size(); left > 0;) {
            ring_.wait([&](std::uint64_t id, int result) {
                if (result < 0) std::abort();
                ring_.collect(pidfds[id]);
                --left;
            });
        }
        return time.nanoseconds();
    }
    idle_bytes idle_tasks(std::size_t) override { return {}; }

  private:
    void echo() {
        raw_ring ring;
        char byte = 0;
        bool open = true;
        enum : std::uint64_t { received, echoed };
        ring.read(received, far_.there[0].get(), byte);
        while (open) {
            ring.wait([&](std::uint64_t id, int result) {
                if (result <= 0)
                    open = false;
                else if (id == received)
                    ring.write(echoed, far_.back[1].get(), byte);
                else
                    ring.read(received, far_.there[0].get(), byte);
            });
        }
    }

    raw_ring ring_;
    two_pipes near_;
    two_pipes far_;
    std::thread echo_;
};

}  // namespace

std::unique_ptr<side> make_raw() { return std::make_unique<raw_side>(); }

}  // namespace bench
