// An io_uring instance as an object: set up with the best flags that the kernel takes, probed for
// what is needed and for what is nice to have, entered. The only header that includes <liburing.h>.
//
// Kernel: 5.11 for the least that is used (EXT_ARG, NODROP); DEFER_TASKRUN 6.1, NO_IOWAIT 6.15 (a
// ring that sleeps is idle and not "waiting for I/O", as PSI would count it). Opcodes are probed,
// versions are not compared. No SQPOLL, no registered files or buffers.
// It is entered here and not by liburing, which learned of NO_IOWAIT in 2.10 (Debian 12 has 2.3).
// Source: io_uring_setup(2), io_uring_enter(2).
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <liburing.h>
#undef BLOCK_SIZE  // comes with <linux/fs.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>

#include <kumiki/async/direct_io.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::detail {

inline constexpr int op_waitid = 50;  // IORING_OP_WAITID, 6.7
inline constexpr unsigned pidfd_id_type = 3;  // P_PIDFD
inline constexpr unsigned feature_no_iowait = 1U << 17;  // IORING_FEAT_NO_IOWAIT, 6.15
inline constexpr unsigned enter_no_iowait = 1U << 7;  // IORING_ENTER_NO_IOWAIT
inline constexpr unsigned enter_by_number = 1U << 4;  // IORING_ENTER_REGISTERED_RING, 5.18

/// The size of a ring, in entries.
struct ring_size {
    unsigned submissions = 256;
    unsigned completions = 1024;
};

class ring_handle {
  public:
    /// Errors: kumiki::error with what io_uring_setup(2) said; `unsupported` for a kernel whose
    /// io_uring lacks something that is needed.
    explicit ring_handle(ring_size size) {
        set_up(size);
        try {
            require_features();
        } catch (...) {
            io_uring_queue_exit(&ring_);
            throw;
        }
        io_uring_ring_dontfork(&ring_);  // a child must not see the ring's memory
        is_registered_ = io_uring_register_ring_fd(&ring_) == 1;  // saves a lookup per call
        // Kernel threads for file I/O count as threads of this process, and stand in the way of
        // unshare(2). One will do; those that wait without bound stay unlimited.
        unsigned workers[2] = {1, 0};
        io_uring_register_iowq_max_workers(&ring_, workers);
    }
    ring_handle(const ring_handle&) = delete;
    ring_handle& operator=(const ring_handle&) = delete;
    ~ring_handle() { io_uring_queue_exit(&ring_); }

    /// An eventfd that is written when there is something to look for. The ring's own descriptor
    /// wakes nobody who polls it for work that DEFER_TASKRUN has put off (seen on 6.18).
    int news_fd() {
        if (!news_) {
            unique_fd made(
                sys::check(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "create an eventfd"));
            if (const int result = io_uring_register_eventfd(&ring_, made.get()); result < 0)
                throw error(-result, {.operation = "register an eventfd with io_uring"});
            news_ = std::move(made);
        }
        return news_.get();
    }
    /// Empties the eventfd. True when there is something to look for already; all that comes after
    /// this writes it again.
    bool has_news() noexcept {
        if (news_) {
            std::uint64_t count = 0;
            [[maybe_unused]] const auto got = ::read(news_.get(), &count, sizeof count);
        }
        return io_uring_cq_ready(&ring_) > 0 || (queue_flags() & needs_entering) != 0;
    }
    unsigned setup_flags() const noexcept { return ring_.flags; }
    bool has_waitid() const noexcept { return has_waitid_; }
    bool has_multishot_poll() const noexcept { return has(IORING_FEAT_RSRC_TAGS); }  // both: 5.13
    bool is_never_iowait() const noexcept { return has(feature_no_iowait); }
    /// False before 6.4: see pipes_know_nowait().
    bool knows_nowait_pipes() const noexcept { return nowait_pipes_; }

    /// Room for one submission; null when the queue is full.
    io_uring_sqe* entry() noexcept { return io_uring_get_sqe(&ring_); }
    /// Hands over what was prepared. Returns a negative errno value when that fails.
    int submit() noexcept { return enter(publish(), 0, 0, nullptr); }
    /// Lets the kernel complete what it can, and move what it kept into the ring.
    int look() noexcept { return enter(0, 0, IORING_ENTER_GETEVENTS, nullptr); }
    /// Hands over what was prepared and lets the kernel complete what it can.
    int submit_and_look() noexcept {
        const unsigned count = publish();
        // The kernel says in the queue's flags when entering has a use.
        if (count == 0 && says_when_needed_ && (queue_flags() & needs_entering) == 0) return 0;
        return enter(count, 0, IORING_ENTER_GETEVENTS, nullptr);
    }
    /// Hands over what was prepared and waits for a completion; with a limit for so long at most
    /// (-ETIME).
    int submit_and_wait(std::optional<std::chrono::nanoseconds> limit) noexcept {
        const unsigned flags = IORING_ENTER_GETEVENTS | (is_never_iowait() ? enter_no_iowait : 0U);
        if (!limit) return enter(publish(), 1, flags, nullptr);
        const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(*limit);
        const __kernel_timespec span{.tv_sec = seconds.count(),
                                     .tv_nsec = (*limit - seconds).count()};
        return enter(publish(), 1, flags, &span);
    }
    /// True when the kernel keeps completions that did not fit; look() fetches them.
    bool has_overflow() const noexcept { return (queue_flags() & IORING_SQ_CQ_OVERFLOW) != 0; }
    /// Calls `use` with each completion that is there.
    template <class Use>
    void reap(Use use) {
        unsigned head = 0;
        unsigned count = 0;
        io_uring_cqe* completion = nullptr;
        io_uring_for_each_cqe(&ring_, head, completion) {
            use(*completion);
            ++count;
        }
        io_uring_cq_advance(&ring_, count);
    }

  private:
    static constexpr unsigned needs_entering = IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN;

    bool has(unsigned feature) const noexcept { return (ring_.features & feature) != 0; }
    unsigned queue_flags() const noexcept {
        return std::atomic_ref<unsigned>(*ring_.sq.kflags).load(std::memory_order_acquire);
    }
    /// Makes what was prepared visible to the kernel. Returns how much it has to take.
    unsigned publish() noexcept {
        io_uring_sq& queue = ring_.sq;
        unsigned tail = *queue.ktail;
        for (; queue.sqe_head != queue.sqe_tail; ++queue.sqe_head, ++tail)
            queue.array[tail & queue.ring_mask] = queue.sqe_head & queue.ring_mask;
        std::atomic_ref<unsigned>(*queue.ktail).store(tail, std::memory_order_release);
        return tail - std::atomic_ref<unsigned>(*queue.khead).load(std::memory_order_acquire);
    }
    int enter(unsigned submissions, unsigned completions, unsigned flags,
              const __kernel_timespec* limit) noexcept {
        if (is_registered_) flags |= enter_by_number;
        if (limit == nullptr)
            return io_uring_enter(static_cast<unsigned>(ring_.enter_ring_fd), submissions,
                                  completions, flags, nullptr);
        io_uring_getevents_arg argument{};
        argument.ts = reinterpret_cast<std::uintptr_t>(limit);
        return io_uring_enter2(static_cast<unsigned>(ring_.enter_ring_fd), submissions, completions,
                               flags | IORING_ENTER_EXT_ARG, reinterpret_cast<sigset_t*>(&argument),
                               sizeof argument);
    }

    void set_up(ring_size size) {
        constexpr unsigned all = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;
        constexpr unsigned good = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG;
        int result = -EINVAL;
        // Best first; a kernel says EINVAL to a flag that it does not know.
        for (const unsigned flags : {good | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
                                     good | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
                                     good | IORING_SETUP_COOP_TASKRUN, 0U}) {
            io_uring_params params{};
            params.flags = all | flags;
            params.cq_entries = std::max(size.completions, size.submissions);
            result = io_uring_queue_init_params(size.submissions, &ring_, &params);
            says_when_needed_ = (flags & IORING_SETUP_TASKRUN_FLAG) != 0;
            if (result != -EINVAL) break;
        }
        if (result < 0)
            throw error(-result, {.operation = "set up io_uring", .remedy = remedy_for(-result)});
    }
    static const char* remedy_for(int code) noexcept {
        switch (code) {
        case EPERM:
            return "It is denied by kernel.io_uring_disabled or by a seccomp filter (the "
                   "default one of Docker and podman is such). The epoll backend needs neither.";
        case ENOSYS:
            return "This kernel has no io_uring. The epoll backend does without.";
        case ENOMEM:
            return "The memory of a ring counts against RLIMIT_MEMLOCK (before 5.12) and the "
                   "memory cgroup.";
        default:
            return "";
        }
    }
    void require_features() {
        constexpr unsigned needed = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG |
                                    IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_RW_CUR_POS;
        const std::unique_ptr<io_uring_probe, decltype(&std::free)> probe(
            io_uring_get_probe_ring(&ring_), &std::free);
        bool complete = probe && (ring_.features & needed) == needed;
        for (const int opcode :
             {IORING_OP_POLL_ADD, IORING_OP_READ, IORING_OP_WRITE, IORING_OP_RECV, IORING_OP_SEND,
              IORING_OP_RECVMSG, IORING_OP_SENDMSG, IORING_OP_ACCEPT, IORING_OP_CONNECT,
              IORING_OP_OPENAT, IORING_OP_CLOSE, IORING_OP_ASYNC_CANCEL})
            complete = complete && io_uring_opcode_supported(probe.get(), opcode) != 0;
        if (!complete)
            throw unsupported(0,
                              {.operation = "use io_uring",
                               .remedy = "Some of its operations are missing: it needs Linux 5.11, "
                                         "and no restriction of opcodes."});
        has_waitid_ = io_uring_opcode_supported(probe.get(), op_waitid) != 0;
    }

    io_uring ring_{};
    unique_fd news_;
    bool is_registered_ = false;
    bool says_when_needed_ = false;
    bool has_waitid_ = false;
    const bool nowait_pipes_ = pipes_know_nowait();
};

}  // namespace kumiki::inline v0::detail
