// A directory that processes share, and of which each can tell whether it is the only user: so what
// belongs to all of them is made by the first and removed by the last, also when one was killed.
//
// Two files in it are locked with flock(2): `users` shared, for as long as the user lives; `gate`
// exclusive, while one comes or goes. A killed process loses both with its descriptors. The last
// one out removes the directory; who waited at a gate that was removed sees that and begins again.
// Left out: any content; see bridge_network.hpp and forwarding.hpp. Not for network filesystems.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <thread>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/scope_exit.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// Being a user of a shared directory. One thread at a time calls it.
class shared_place {
  public:
    /// Comes to the absolute directory `path` (made, with those above it, when missing).
    /// `prepare(directory, alone)` runs while nobody else can come or go; when it throws, this user
    /// was never there. Errors: kumiki::error; EBUSY when the gate was kept for five seconds.
    template <class Prepare>
    shared_place(std::string path, Prepare&& prepare) : path_(std::move(path)) {
        pass_gate();
        const scope_exit shut([this]() noexcept { ::flock(gate_.get(), LOCK_UN); });
        users_ = sys::open_at(directory_.get(), "users", O_RDWR | O_CREAT, 0600);
        const bool alone = try_lock(users_, LOCK_EX);
        scope_exit undo([&]() noexcept { remove_if(alone); });
        if (!try_lock(users_, LOCK_SH))
            throw error(EBUSY, {.operation = "share directory", .object = path_});
        std::forward<Prepare>(prepare)(directory_.get(), alone);
        undo.dismiss();
    }
    shared_place(const shared_place&) = delete;
    shared_place& operator=(const shared_place&) = delete;
    ~shared_place() {
        detail::release_quietly([this] { leave([](int, bool) {}); });
    }

    const std::string& path() const noexcept { return path_; }
    /// The directory, for files beside the two locks.
    int directory() const noexcept { return directory_.get(); }

    /// Runs `function(directory)` while nobody else can come or go.
    template <class Function>
    auto exclusively(Function&& function) {
        lock_gate();
        const scope_exit shut([this]() noexcept { ::flock(gate_.get(), LOCK_UN); });
        return std::forward<Function>(function)(directory_.get());
    }
    /// Goes. `clean(directory, alone)` runs while nobody else can come or go; when alone it removes
    /// the files that it knows of, and the directory goes too. Nothing when this user went before.
    template <class Clean>
    void leave(Clean&& clean) {
        if (!users_) return;
        const unique_fd users = std::move(users_);
        lock_gate();
        const scope_exit shut([this]() noexcept { ::flock(gate_.get(), LOCK_UN); });
        const bool alone = try_lock(users, LOCK_EX);
        const scope_exit remove([&]() noexcept { remove_if(alone); });
        std::forward<Clean>(clean)(directory_.get(), alone);
    }

  private:
    static bool try_lock(const unique_fd& file, int kind) {
        const int result = sys::retry([&] { return ::flock(file.get(), kind | LOCK_NB); });
        if (result != 0 && errno == EWOULDBLOCK) return false;
        sys::check(result, "lock shared directory");
        return true;
    }
    void lock_gate() {
        // flock(2) has no time limit, and a stopped process must not stop all others for ever. The
        // gate is kept for a few milliseconds: this loop is hardly ever entered.
        for (int tries = 0; !try_lock(gate_, LOCK_EX); ++tries) {
            if (tries == 5000)
                throw error(EBUSY, {.operation = "share directory",
                                    .object = path_,
                                    .remedy = "Another process keeps its gate locked."});
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    }
    void make_directory() const {
        for (std::size_t at = path_.find('/', 1);; at = path_.find('/', at + 1)) {
            const std::string part = path_.substr(0, at);
            if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST)
                sys::check(-1, "make directory", part);
            if (at == std::string::npos) return;
        }
    }
    // The last user may remove all of it at any moment before the gate is ours.
    void pass_gate() {
        for (;;) {
            make_directory();
            auto directory = sys::try_open_at(AT_FDCWD, path_, O_RDONLY | O_DIRECTORY);
            if (!directory) continue;
            const int gate = sys::retry([&] {
                return ::openat(directory->get(), "gate", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
            });
            if (gate < 0 && errno == ENOENT) continue;
            gate_.reset(sys::check(gate, "open", path_ + "/gate"));
            directory_ = std::move(*directory);
            lock_gate();
            if (sys::status_of(gate_.get()).st_nlink != 0) return;
        }
    }
    void remove_if(bool alone) noexcept {
        if (!alone) return;
        ::unlinkat(directory_.get(), "users", 0);
        ::unlinkat(directory_.get(), "gate", 0);
        ::rmdir(path_.c_str());  // stays when somebody came in through a gate of his own
    }

    std::string path_;
    unique_fd directory_;
    unique_fd gate_;
    unique_fd users_;
};

}  // namespace kumiki::inline v0
