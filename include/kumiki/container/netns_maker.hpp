// The network namespace of a container, made beside its start. It is the dearest of the namespaces
// (most of a millisecond, all of it in the kernel), so a spawner's thread makes it while the cgroup
// is made, the plan written and the root filesystem mounted; the child gets it over its control
// socket and enters it before it mounts /sys.
//
// Not for a container with a user namespace: its network namespace must belong to that one, and
// comes with the child's clone3.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include <array>
#include <cerrno>

#include <kumiki/container/loopback.hpp>
#include <kumiki/container/spawner.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/send_descriptors.hpp>

namespace kumiki::inline v0::detail {

/// Makes one network namespace and sends it to a child. The destructor waits for the thread.
class netns_maker {
  public:
    /// `control`: the supervisor's end of the child's socket. With `then_go` the loopback interface
    /// is up when the child is told to go on: nothing else has to be done to the namespace before
    /// the payload runs.
    netns_maker(int control, bool then_go) {
        job_.control = unique_fd(
            sys::check(::fcntl(control, F_DUPFD_CLOEXEC, 3), "duplicate", "the control socket"));
        job_.then_go = then_go;
        spawner::shared().submit(job_);
    }
    netns_maker(const netns_maker&) = delete;
    netns_maker& operator=(const netns_maker&) = delete;
    ~netns_maker() {
        if (!spawner::shared().withdraw(job_)) spawner::shared().wait(job_);
    }

    /// errno of what failed; 0: nothing did. Waits, usually for less than a millisecond.
    int wait() {
        spawner::shared().wait(job_);
        return job_.error;
    }
    /// The namespace. Valid after wait().
    int fd() const noexcept { return job_.netns.get(); }

  private:
    struct job : spawner_job {
        job() : spawner_job(&make) {}

        unique_fd control{};
        bool then_go = false;
        unique_fd netns{};
        int error = 0;

        static void make(spawner_job& self, char*) noexcept {
            auto& asked = static_cast<job&>(self);
            asked.error = asked.make_and_send();
            // Without a namespace the child finds the end of the socket where it waits for it.
            if (asked.error != 0) ::shutdown(asked.control.get(), SHUT_WR);
            asked.control.reset();
        }

        int make_and_send() noexcept {
            constexpr const char* own = "/proc/thread-self/ns/net";
            const unique_fd before(::open(own, O_RDONLY | O_CLOEXEC));
            if (!before) return errno;
            if (const int code = enter_new(); code != 0) return code;
            netns.reset(::open(own, O_RDONLY | O_CLOEXEC));
            int code = netns ? 0 : errno;
            if (code == 0 && then_go) {  // first the child, which goes on meanwhile
                code = send();
                if (code == 0) code = raise_loopback();
            }
            // The thread must not keep the namespace alive, and makes clones of the host's again.
            if (::setns(before.get(), CLONE_NEWNET) != 0) return errno;
            if (code != 0) return code;
            if (!then_go) return send();
            (void)::send(control.get(), "g", 1, MSG_NOSIGNAL);
            return 0;
        }
        /// The loopback interface up, as encode_loopback() has a child do it.
        static int raise_loopback() noexcept {
            const unique_fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
            if (!fd) return errno;
            ifreq request = loopback_up();
            return ::ioctl(fd.get(), SIOCSIFFLAGS, &request) == 0 ? 0 : errno;
        }
        /// Ended namespaces count against the limit until the kernel has cleaned them up: ENOSPC is
        /// tried again for two seconds.
        static int enter_new() noexcept {
            timespec pause{.tv_sec = 0, .tv_nsec = 1'000'000};
            for (int attempt = 0;; ++attempt) {
                if (::unshare(CLONE_NEWNET) == 0) return 0;
                const int code = errno;
                if (code != ENOSPC || attempt == 35) return code;
                ::nanosleep(&pause, nullptr);
                if (pause.tv_nsec < 64'000'000) pause.tv_nsec *= 2;
            }
        }
        int send() noexcept {
            const bool sent =
                sys::send_descriptors(control.get(), "n", 1, std::array{netns.get()}) == 1;
            // A child that has failed already has said why: its end being closed is no failure here.
            return sent || errno == EPIPE || errno == ECONNRESET ? 0 : errno;
        }
    };

    job job_;
};

}  // namespace kumiki::inline v0::detail
