// The io_uring backend: one ring, owned by one thread. The only header that includes <liburing.h>.
//
// Kernel: 5.11 for the least that is used (EXT_ARG, NODROP); the best set of flags that the kernel
// takes is used (DEFER_TASKRUN: 6.1). Opcodes are probed, versions are not compared. No SQPOLL, no
// registered files or buffers, no multishot, no opcode that depends on namespaces, root or
// credentials (io_uring workers keep those of the thread that made them).
// Source: io_uring_setup(2), io_uring_enter(2).
#pragma once

#include <poll.h>
#include <sys/wait.h>

#include <liburing.h>
#undef BLOCK_SIZE  // comes with <linux/fs.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <optional>
#include <utility>

#include <kumiki/async/backend.hpp>
#include <kumiki/async/direct_io.hpp>
#include <kumiki/core/error.hpp>

namespace kumiki::inline v0::detail {

inline constexpr int op_waitid = 50;            // IORING_OP_WAITID, 6.7
inline constexpr unsigned pidfd_id_type = 3;  // P_PIDFD

/// The size of a ring, in entries.
struct ring_size {
    unsigned submissions = 256;
    unsigned completions = 1024;
};

class ring final : public backend {
  public:
    /// Errors: kumiki::error with what io_uring_setup(2) said; `unsupported` for a kernel whose
    /// io_uring lacks something that is needed.
    ring(loop_core& loop, ring_size size) : loop_(loop) {
        set_up(size);
        try {
            require_features();
        } catch (...) {
            io_uring_queue_exit(&ring_);
            throw;
        }
        io_uring_ring_dontfork(&ring_);  // a child must not see the ring's memory
        io_uring_register_ring_fd(&ring_);  // saves a lookup per call; not needed
        // Kernel threads for file I/O count as threads of this process, and stand in the way of
        // unshare(2). One will do; those that wait without bound stay unlimited.
        unsigned workers[2] = {1, 0};
        io_uring_register_iowq_max_workers(&ring_, workers);
    }
    ~ring() override { io_uring_queue_exit(&ring_); }

    bool supports(request_kind kind) const noexcept override {
        return kind != request_kind::wait_child || has_waitid_;
    }

    void start(io_operation& of) override {
        io_uring_sqe* const entry = next_entry();
        if (!nowait_pipes_ && is_transfer(of.asked) && of.asked.stage == request_stage::first)
            of.asked.stage = request_stage::polled;
        if (of.asked.stage == request_stage::polled)
            io_uring_prep_poll_add(entry, of.asked.fd,
                                   of.asked.kind == request_kind::read ? POLLIN : POLLOUT);
        else
            prepare(*entry, of.asked);
        io_uring_sqe_set_data64(entry, of.id());
    }

    void cancel(io_operation& of) noexcept override {
        try {
            io_uring_sqe* const entry = next_entry();
            if (!of.in_flight()) {  // finished while room was made
                io_uring_prep_nop(entry);
            } else {
                io_uring_prep_cancel64(entry, of.id(), 0);
            }
            io_uring_sqe_set_data64(entry, id_ignored);
        } catch (...) {
            fatal("io_uring takes no more submissions: an operation cannot be cancelled");
        }
    }

    void wait(std::optional<std::chrono::nanoseconds> limit) override {
        if (!wake_armed_) {
            io_uring_sqe* const entry = next_entry();
            io_uring_prep_poll_add(entry, loop_.remote.fd(), POLLIN);
            io_uring_sqe_set_data64(entry, id_wake);
            wake_armed_ = true;
        }
        int result = 0;
        if (!limit) {
            result = io_uring_submit_and_wait(&ring_, 1);
        } else if (limit->count() <= 0) {
            result = io_uring_submit_and_get_events(&ring_);
        } else {
            __kernel_timespec span{};
            span.tv_sec = std::chrono::duration_cast<std::chrono::seconds>(*limit).count();
            span.tv_nsec = (*limit % std::chrono::seconds(1)).count();
            io_uring_cqe* unused = nullptr;
            result = io_uring_submit_and_wait_timeout(&ring_, &unused, 1, &span, nullptr);
        }
        reap();
        if (result < 0 && result != -ETIME) require_transient(result);
    }

    /// How often completions did not fit into the ring and were kept by the kernel.
    std::uint64_t overflows() const noexcept { return overflows_; }
    unsigned setup_flags() const noexcept { return ring_.flags; }

  private:
    static constexpr std::uint64_t id_ignored = 0;
    static constexpr std::uint64_t id_wake = 1;  // generation 0: no operation has these

    void set_up(ring_size size) {
        constexpr unsigned all = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;
        int result = -EINVAL;
        // Best first; a kernel says EINVAL to a flag that it does not know.
        for (const unsigned flags :
             {IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
              IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
              IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN, 0U}) {
            io_uring_params params{};
            params.flags = all | flags;
            params.cq_entries = std::max(size.completions, size.submissions);
            result = io_uring_queue_init_params(size.submissions, &ring_, &params);
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
              IORING_OP_ASYNC_CANCEL})
            complete = complete && io_uring_opcode_supported(probe.get(), opcode) != 0;
        if (!complete)
            throw unsupported(0,
                              {.operation = "use io_uring",
                               .remedy = "Some of its operations are missing: it needs Linux 5.11, "
                                         "and no restriction of opcodes."});
        has_waitid_ = io_uring_opcode_supported(probe.get(), op_waitid) != 0;
    }

    static void prepare(io_uring_sqe& entry, const request& asked) noexcept {
        const auto length = static_cast<unsigned>(std::min(asked.length, most_at_once));
        const int flags = static_cast<int>(asked.flags);
        switch (asked.kind) {
        case request_kind::poll:
            io_uring_prep_poll_add(&entry, asked.fd, asked.flags);
            break;
        case request_kind::read:
            io_uring_prep_read(&entry, asked.fd, asked.data, length, static_cast<__u64>(-1));
            break;
        case request_kind::write:
            io_uring_prep_write(&entry, asked.fd, asked.data, length, static_cast<__u64>(-1));
            break;
        case request_kind::receive:
            io_uring_prep_recv(&entry, asked.fd, asked.data, length, flags);
            break;
        case request_kind::send:
            io_uring_prep_send(&entry, asked.fd, asked.data, length, flags | MSG_NOSIGNAL);
            break;
        case request_kind::receive_message:
            io_uring_prep_recvmsg(&entry, asked.fd, static_cast<msghdr*>(asked.data), asked.flags);
            break;
        case request_kind::send_message:
            io_uring_prep_sendmsg(&entry, asked.fd, static_cast<msghdr*>(asked.data),
                                  asked.flags | MSG_NOSIGNAL);
            break;
        case request_kind::accept:
            io_uring_prep_accept(&entry, asked.fd, nullptr, nullptr, flags);
            break;
        case request_kind::connect:
            io_uring_prep_connect(&entry, asked.fd, static_cast<const sockaddr*>(asked.data),
                                  static_cast<socklen_t>(asked.length));
            break;
        case request_kind::wait_child:
            // liburing 2.3 has no helper: idtype in len, options in file_index, result at addr2.
            io_uring_prep_rw(op_waitid, &entry, asked.fd, nullptr, pidfd_id_type, 0);
            entry.file_index = asked.flags;
            entry.addr2 = reinterpret_cast<std::uintptr_t>(asked.data);
            break;
        }
    }

    /// Room for one submission, made by submitting what is there when the queue is full.
    io_uring_sqe* next_entry() {
        for (;;) {
            if (io_uring_sqe* const entry = io_uring_get_sqe(&ring_)) return entry;
            const int result = io_uring_submit(&ring_);
            if (result >= 0) continue;
            require_transient(result);
            io_uring_get_events(&ring_);  // EBUSY: completions are waiting for room
            reap();
        }
    }

    static void require_transient(int result) {
        if (result != -EINTR && result != -EAGAIN && result != -EBUSY)
            throw error(-result, {
                                     .operation = "wait for io_uring",
                                 });
    }

    void reap() {
        for (;;) {
            unsigned head = 0;
            unsigned count = 0;
            io_uring_cqe* entry = nullptr;
            io_uring_for_each_cqe(&ring_, head, entry) {
                finish(*entry);
                ++count;
            }
            io_uring_cq_advance(&ring_, count);
            while (again_ != nullptr) start(*std::exchange(again_, again_->next_on_fd));
            if (!io_uring_cq_has_overflow(&ring_)) return;
            ++overflows_;
            io_uring_get_events(&ring_);  // moves what the kernel kept into the ring
        }
    }
    void finish(const io_uring_cqe& entry) noexcept {
        const std::uint64_t id = entry.user_data;
        if (id == id_wake) {
            wake_armed_ = false;
        } else if (operation* const found =
                       id == id_ignored ? nullptr : loop_.operations.find(id)) {
            auto& of = static_cast<io_operation&>(*found);
            const std::optional<int> result = settle(of, entry.res);
            if (result) return of.finish(*result);
            if (of.cancel_requested()) return of.finish(-ECANCELED);
            of.next_on_fd = again_;
            again_ = &of;
        }
    }
    static bool is_transfer(const request& asked) noexcept {
        return asked.kind == request_kind::read || asked.kind == request_kind::write;
    }
    /// What a completion means for its operation: its result, or nothing when it has to be
    /// submitted once more. A read or write that did not get to wait in the kernel becomes a poll
    /// and then a direct call: in non-blocking mode (EAGAIN); where pipes lack RWF_NOWAIT, from the
    /// start; and where the kernel could not make the thread that it wanted for the call, which it
    /// tells as a cancellation that nobody asked for.
    static std::optional<int> settle(io_operation& of, int result) noexcept {
        request& asked = of.asked;
        if (!is_transfer(asked)) return result;
        if (asked.stage == request_stage::polled) {
            if (result < 0) return result;
            asked.stage = request_stage::again;
            return transfer_now(asked);
        }
        const bool not_made = result == -ECANCELED && !of.cancel_requested();
        if (result != -EAGAIN && !not_made) return result;
        asked.stage = request_stage::polled;
        return std::nullopt;
    }

    loop_core& loop_;
    io_uring ring_{};
    io_operation* again_ = nullptr;  // to be started once more
    bool wake_armed_ = false;
    bool has_waitid_ = false;
    const bool nowait_pipes_ = pipes_know_nowait();
    std::uint64_t overflows_ = 0;
};

}  // namespace kumiki::inline v0::detail
