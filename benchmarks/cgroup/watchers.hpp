// Who waits for an event of a group, each on a thread of its own: kumiki's stream, inotify by hand,
// poll(POLLPRI) by hand, and a look every 100 ms. They tell when they knew of it.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/cgroup/events.hpp>

#include "cgroup/place.hpp"

namespace bench {

using kind = kumiki::cgroup_event_kind;

/// What a watcher's thread tells the one that causes the events.
class news {
  public:
    explicit news(std::string name)
        : name_(std::move(name)),
          told_(sys::check(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")) {}
    void tell(kind what, std::uint64_t when) {
        at_[static_cast<std::size_t>(what)] = when;
        ::eventfd_write(told_.get(), 1);
    }
    /// When the event was known of that was caused at `since`; an error after half a minute.
    std::uint64_t wait(kind what, std::uint64_t since) {
        for (const std::uint64_t until = now() + 30'000'000'000U; now() < until;) {
            if (const std::uint64_t at = at_[static_cast<std::size_t>(what)]; at > since) return at;
            if (interrupted != 0) return since;
            pollfd wait{.fd = told_.get(), .events = POLLIN, .revents = 0};
            ::poll(&wait, 1, 1000);
            eventfd_t count = 0;
            ::eventfd_read(told_.get(), &count);
        }
        throw kumiki::error(ETIMEDOUT, {.operation = "wait for",
                                        .object = std::string(kumiki::to_string(what)),
                                        .remedy = "The watcher was: " + name_});
    }

  private:
    std::string name_;
    std::array<std::atomic<std::uint64_t>, 11> at_{};
    unique_fd told_;
};

/// A group and the thread that watches it.
class watched {
  public:
    /// Runs `watch` on the thread, which ends when stop_fd() is readable or the group is removed.
    template <class Watch>
    watched(std::string name, kumiki::cgroup group, std::chrono::milliseconds period, Watch watch)
        : group_(std::move(group)), pause_(25'000'000, 25'000'000 + period.count() * 1'000'000),
          stop_(sys::check(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")),
          news_(std::move(name)), thread_([this, watch] {
              try {
                  watch(*this);
              } catch (const std::exception& failure) {
                  fmt::print(stderr, "a watcher: {}\n", failure.what());
              }
          }) {
        settle();
        settle();
    }
    watched(const watched&) = delete;
    watched& operator=(const watched&) = delete;
    ~watched() {
        ::eventfd_write(stop_.get(), 1);
        kumiki::detail::release_quietly([&] { group_.destroy(); });
        thread_.join();
    }
    const kumiki::cgroup& group() const noexcept { return group_; }
    int stop_fd() const noexcept { return stop_.get(); }
    news& told() noexcept { return news_; }
    /// The kernel tells of one file at most every 10 ms, and later if it was asked to tell sooner. So a
    /// cause comes longer than that after the last one; and at any point of a watcher's period.
    void keep_apart() {
        const timespec pause{.tv_sec = 0, .tv_nsec = pause_(random_)};
        ::nanosleep(&pause, nullptr);
    }

  private:
    kumiki::cgroup group_;
    std::uniform_int_distribution<long> pause_;
    std::mt19937_64 random_{2};
    unique_fd stop_;
    news news_;
    std::thread thread_;
};

inline kumiki::task<void> tell_all(kumiki::scheduler& io, watched& of) {
    auto events = kumiki::watch_events(io, of.group());
    for (;;) {
        auto event = co_await events.next();
        if (!event) co_return;
        of.told().tell(event->kind, now());
    }
}

inline void watch_by_kumiki(watched& of) {
    kumiki::scheduler io;
    io.run(tell_all(io, of));
}

/// What changed in the text of cgroup.events, by hand.
class by_hand {
  public:
    explicit by_hand(const kumiki::cgroup& group)
        : file_(sys::open_at(group.fd(), "cgroup.events", O_RDONLY)) {
        look();
    }
    int fd() const noexcept { return file_.get(); }
    /// False when the group is gone.
    bool look_and_tell(news& to) {
        const bool populated = populated_;
        const bool frozen = frozen_;
        if (!look()) return false;
        const std::uint64_t at = now();
        if (populated != populated_) to.tell(populated_ ? kind::populated : kind::empty, at);
        if (frozen != frozen_) to.tell(frozen_ ? kind::frozen : kind::thawed, at);
        return true;
    }

  private:
    bool look() {
        char text[256];
        const auto size = ::pread(file_.get(), text, sizeof text, 0);
        if (size < 0) return false;
        const std::string_view read(text, static_cast<std::size_t>(size));
        populated_ = read.find("populated 1") != std::string_view::npos;
        frozen_ = read.find("frozen 1") != std::string_view::npos;
        return true;
    }

    unique_fd file_;
    bool populated_ = false;
    bool frozen_ = false;
};

inline void watch_by_poll(watched& of) {
    by_hand file(of.group());
    for (;;) {
        pollfd both[] = {{.fd = file.fd(), .events = POLLPRI, .revents = 0},
                         {.fd = of.stop_fd(), .events = POLLIN, .revents = 0}};
        ::poll(both, 2, -1);
        if (both[1].revents != 0 || !file.look_and_tell(of.told())) return;
    }
}

inline void watch_by_inotify(watched& of) {
    by_hand file(of.group());
    const unique_fd changes(sys::check(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK), "inotify_init1"));
    const std::string path = of.group().path() + "/cgroup.events";
    sys::check(::inotify_add_watch(changes.get(), path.c_str(), IN_MODIFY), "inotify_add_watch");
    for (;;) {
        pollfd both[] = {{.fd = changes.get(), .events = POLLIN, .revents = 0},
                         {.fd = of.stop_fd(), .events = POLLIN, .revents = 0}};
        ::poll(both, 2, -1);
        char read[4096];
        while (::read(changes.get(), read, sizeof read) > 0) {}
        if (both[1].revents != 0 || !file.look_and_tell(of.told())) return;
    }
}

inline void watch_by_time(watched& of) {
    by_hand file(of.group());
    for (;;) {
        pollfd stop{.fd = of.stop_fd(), .events = POLLIN, .revents = 0};
        if (::poll(&stop, 1, 100) > 0 || !file.look_and_tell(of.told())) return;
    }
}

/// From the write to cgroup.freeze until the watcher knows that the group is frozen. Microseconds.
inline double time_of_freeze(watched& who) {
    who.keep_apart();
    const std::uint64_t start = now();
    who.group().freeze();
    const std::uint64_t known = who.told().wait(kind::frozen, start);
    const std::uint64_t thawed = now();
    who.group().thaw();
    who.told().wait(kind::thawed, thawed);
    return static_cast<double>(known - start) / 1000;
}

/// From the last instructions of the only process until the watcher knows that the group is empty.
inline double time_of_end(watched& who) {
    const std::uint64_t born = now();
    const inmate process(who.group());
    who.told().wait(kind::populated, born);
    who.keep_apart();
    const std::uint64_t start = now();
    process.let_go();
    const std::uint64_t known = who.told().wait(kind::empty, start);
    who.keep_apart();
    return static_cast<double>(known - process.last_words()) / 1000;
}

/// The four, each with a group of its own.
class watchers {
  public:
    explicit watchers(kumiki::cgroup_root& root) {
        using std::chrono::milliseconds;
        const auto add = [&](const char* name, void (*watch)(watched&),
                             milliseconds period = milliseconds(0)) {
            names_.push_back(name);
            all_.push_back(std::make_unique<watched>(
                name,
                kumiki::cgroup::create(root.group(), "watched-" + std::to_string(all_.size())),
                period, watch));
        };
        add("kumiki", watch_by_kumiki);
        add("inotify by hand", watch_by_inotify);
        add("poll by hand", watch_by_poll);
        add("a look every 100 ms", watch_by_time, milliseconds(100));
    }
    std::vector<series> timed(double (*how)(watched&)) {
        std::vector<series> field;
        for (std::size_t i = 0; i < all_.size(); ++i)
            field.push_back({names_[i], [how, one = all_[i].get()] { return how(*one); }});
        return field;
    }

  private:
    std::vector<std::string> names_;
    std::vector<std::unique_ptr<watched>> all_;
};

}  // namespace bench
