// The io_uring backend: one ring, owned by one thread.
//
// Requests become submissions; several are handed over with one system call, the one that waits.
// The kernel knows an operation by its id alone. No opcode that depends on namespaces, root or
// credentials is used unasked (io_uring's threads keep those of the thread that made them): only
// files.hpp opens by path. Kernel: see ring_handle.hpp. Source: io_uring_enter(2).
#pragma once

#include <poll.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include <kumiki/async/backend.hpp>
#include <kumiki/async/direct_io.hpp>
#include <kumiki/async/ring_handle.hpp>
#include <kumiki/core/error.hpp>

namespace kumiki::inline v0::detail {

class ring final : public backend {
  public:
    /// Errors: as ring_handle.
    ring(loop_core& loop, ring_size size) : loop_(loop), ring_(size) {}

    bool supports(request_kind kind) const noexcept override {
        return kind != request_kind::wait_child || ring_.has_waitid();
    }

    void start(io_operation& of) override {
        io_uring_sqe* const entry = next_entry();
        if (!ring_.knows_nowait_pipes() && is_transfer(of.asked) &&
            of.asked.stage == request_stage::first)
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
        const bool sleeps = !limit || limit->count() > 0;
        const int result = sleeps ? ring_.submit_and_wait(limit) : ring_.submit_and_look();
        reap();
        if (result < 0 && result != -ETIME) require_transient(result);
    }

    int pollable_fd() override { return ring_.news_fd(); }
    // A wake-up that has come is to be asked for again, which wait() does.
    bool has_news() noexcept override { return !wake_armed_ || ring_.has_news(); }
    const ring_handle& handle() const noexcept { return ring_; }

  private:
    static constexpr std::uint64_t id_ignored = 0;
    static constexpr std::uint64_t id_wake = 1;  // generation 0: no operation has these

    void prepare(io_uring_sqe& entry, const request& asked) const noexcept {
        const auto length = static_cast<unsigned>(std::min(asked.length, most_at_once));
        const int flags = static_cast<int>(asked.flags);
        switch (asked.kind) {
        case request_kind::poll:
            io_uring_prep_poll_add(&entry, asked.fd, asked.flags);
            break;
        case request_kind::poll_many:
            if (ring_.has_multishot_poll())
                io_uring_prep_poll_multishot(&entry, asked.fd, asked.flags);
            else
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
        case request_kind::open:
            io_uring_prep_openat(&entry, asked.fd, static_cast<const char*>(asked.data), flags,
                                 static_cast<mode_t>(asked.length));
            break;
        case request_kind::close:
            io_uring_prep_close(&entry, asked.fd);
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
            if (io_uring_sqe* const entry = ring_.entry()) return entry;
            const int result = ring_.submit();
            if (result >= 0) continue;
            require_transient(result);
            ring_.look();  // EBUSY: completions are waiting for room
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
            ring_.reap([this](const io_uring_cqe& entry) { finish(entry); });
            while (again_ != nullptr) start(*std::exchange(again_, again_->next_on_fd));
            if (!ring_.has_overflow()) return;
            ++loop_.overflowed;
            ring_.look();  // moves what the kernel kept into the ring
        }
    }
    void finish(const io_uring_cqe& entry) noexcept {
        const std::uint64_t id = entry.user_data;
        if (id == id_wake) {
            wake_armed_ = false;
        } else if (operation* const found =
                       id == id_ignored ? nullptr : loop_.operations.find(id)) {
            auto& of = static_cast<io_operation&>(*found);
            if ((entry.flags & IORING_CQE_F_MORE) != 0) return of.progress(entry.res);
            const std::optional<int> result = settle(of, entry.res);
            if (result) return of.complete(*result);
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
    ring_handle ring_;
    io_operation* again_ = nullptr;  // to be started once more
    bool wake_armed_ = false;
};

}  // namespace kumiki::inline v0::detail
