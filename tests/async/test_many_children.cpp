// Very many children at the same time, each waited for by a task of its own.

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

#include <kumiki/async/scope.hpp>
#include <kumiki/sys/raw.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KUMIKI_TEST_TSAN
#endif
#endif
#if defined(KUMIKI_TEST_TSAN) || defined(__SANITIZE_THREAD__)
/// Entering a function is written down per thread, also where nothing else is instrumented: children
/// in shared memory would write over the parent's. Copies of all that memory take long, so fewer.
constexpr bool can_share_memory = false;
constexpr std::size_t usual_count = 1'000;
#else
constexpr bool can_share_memory = sys::has_own_stack_clone;
constexpr std::size_t usual_count = 10'000;
#endif
#undef KUMIKI_TEST_TSAN

/// Virtual machines without KVM ask for fewer.
std::size_t wanted() {
    const char* const given = std::getenv("KUMIKI_CHILDREN");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : usual_count;
}

int code_of(std::size_t number) { return static_cast<int>(number % 251); }

struct life {
    pid_t parent;
    int gate;
    int code;
};

/// Waits for the end of the gate's pipe, or of the test. Shares the descriptors of the test, so it
/// holds the other end of the pipe itself, and most often the memory too.
KUMIKI_CHILD_SIDE void live(void* argument) {
    const life& own = *static_cast<const life*>(argument);
    char byte = 0;
    sys::raw_syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
    if (sys::raw_syscall(SYS_getppid) == own.parent)
        sys::raw_syscall(SYS_read, own.gate, reinterpret_cast<long>(&byte), 1);
    for (;;) sys::raw_syscall(SYS_exit_group, own.code);
}

struct mapping {
    mapping(std::size_t bytes, int protection)
        : size(bytes), start(::mmap(nullptr, bytes, protection,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
        if (start == MAP_FAILED) sys::check(-1, "mmap");
    }
    ~mapping() { ::munmap(start, size); }
    mapping(const mapping&) = delete;
    mapping& operator=(const mapping&) = delete;
    std::byte* data() const { return static_cast<std::byte*>(start); }

    std::size_t size;
    void* start;
};

/// Children that wait for the end of a pipe, and then exit with the code of their number.
class crowd {
  public:
    explicit crowd(std::size_t count)
        : gate_(make_pipe()), stacks_(count * stack_size, PROT_READ | PROT_WRITE) {
        lives_.reserve(count);
        for (std::size_t i = 0; i < count; ++i) {
            lives_.push_back({::getpid(), gate_.first.get(), code_of(i)});
            int pidfd = -1;
            sys::clone_arguments request{.flags = CLONE_FILES | sys::clone_pidfd,
                                         .pidfd = reinterpret_cast<std::uint64_t>(&pidfd),
                                         .exit_signal = SIGCHLD};
            long child = 0;
            if constexpr (can_share_memory) {
                request.flags |= sys::clone_vm;
                request.stack = reinterpret_cast<std::uint64_t>(stacks_.data() + i * stack_size);
                request.stack_size = stack_size;
                child = sys::clone_on_stack(request, live, &lives_.back());
            } else {
                child = sys::clone_copied(request, live, &lives_.back());
            }
            if (child < 0) break;
            children_.emplace_back(pidfd);
        }
    }
    ~crowd() {
        let_go();
        for (const unique_fd& child : children_) {
            try {
                sys::wait_blocking(child.get());
            } catch (const error&) {}  // collected already
        }
    }
    crowd(const crowd&) = delete;
    crowd& operator=(const crowd&) = delete;

    void let_go() { gate_.second.reset(); }
    const std::vector<unique_fd>& pidfds() const { return children_; }

  private:
    static constexpr std::size_t stack_size = 16384;

    descriptor_pair gate_;
    std::vector<life> lives_;
    mapping stacks_;
    std::vector<unique_fd> children_;
};

/// The soft limit of descriptors, raised for as long as this lives.
class more_descriptors {
  public:
    explicit more_descriptors(rlim_t count) {
        ::getrlimit(RLIMIT_NOFILE, &before_);
        rlimit now = before_;
        now.rlim_cur = std::min(std::max(now.rlim_cur, count), now.rlim_max);
        ::setrlimit(RLIMIT_NOFILE, &now);
        enough_ = now.rlim_cur >= count;
    }
    ~more_descriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
    more_descriptors(const more_descriptors&) = delete;
    more_descriptors& operator=(const more_descriptors&) = delete;
    bool is_enough() const { return enough_; }

  private:
    rlimit before_{};
    bool enough_ = false;
};

task<void> wait_and_count(scheduler& io, int pidfd, std::vector<int>& results, std::size_t number) {
    const auto status = co_await io.wait_exit(pidfd);
    results[number] += status.signal == 0 && status.code == code_of(number) ? 1 : 1000;
}

struct idle_second {
    std::uint64_t sleeps = 0;
    std::uint64_t resumed = 0;
    long switches = 0;
};

long switches_of_this_thread() {
    rusage used{};
    ::getrusage(RUSAGE_THREAD, &used);
    return used.ru_nvcsw;
}

task<void> wait_for_all(scheduler& io, crowd& children, std::vector<int>& results,
                        idle_second& idle) {
    scope tasks(io);
    for (std::size_t i = 0; i < children.pidfds().size(); ++i)
        tasks.spawn(wait_and_count(io, children.pidfds()[i].get(), results, i));
    co_await io.sleep_for(100ms);  // all wait
    const scheduler_counters before = io.counters();
    const long switches = switches_of_this_thread();
    co_await io.sleep_for(1s);
    const scheduler_counters after = io.counters();
    idle = {after.sleeps - before.sleeps, after.resumed - before.resumed,
            switches_of_this_thread() - switches};
    children.let_go();
    co_await tasks.join();
}

struct way {
    io_backend backend;
    child_wait wait;
    const char* name;
};

}  // namespace

TEST_CASE("ten thousand children are waited for, each result comes once, nothing polls",
          "[many_children]") {
    const auto how = GENERATE(way{io_backend::io_uring, child_wait::waitid, "waitid"},
                              way{io_backend::io_uring, child_wait::poll, "io_uring poll"},
                              way{io_backend::epoll, child_wait::automatic, "epoll"});
    INFO(how.name);
    if (how.backend == io_backend::io_uring && !has_io_uring()) KUMIKI_SKIP("io_uring is denied");
    scheduler io({.backend = how.backend, .waits_for_children = how.wait});
    if (how.wait == child_wait::waitid &&
        !io.loop().through().supports(detail::request_kind::wait_child))
        KUMIKI_SKIP("no IORING_OP_WAITID on this kernel");
    const std::size_t count = wanted();
    const more_descriptors limit(count + 100);
    if (!limit.is_enough()) KUMIKI_SKIP("RLIMIT_NOFILE does not allow so many pidfds");
    crowd children(count);
    if (children.pidfds().size() < count)
        KUMIKI_SKIP("only " + std::to_string(children.pidfds().size()) +
                    " processes can be made here");
    std::vector<int> results(count);
    idle_second idle;
    io.run(wait_for_all(io, children, results, idle));
    CHECK(std::all_of(results.begin(), results.end(), [](int times) { return times == 1; }));
    CHECK(idle.sleeps == 1);  // the second itself
    CHECK(idle.resumed == 1);  // at its end
    CHECK(idle.switches <= 2);
    CHECK(io.counters().in_flight == 0);
}
