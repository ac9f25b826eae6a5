// A controller of cgroup v2 that this host has, for tests of how they are handed down.
#pragma once

#include <fcntl.h>
#include <sys/file.h>

#include <optional>
#include <string>

#include <kumiki/cgroup/root.hpp>

namespace kumiki_test {

/// One controller that the host's v2 hierarchy has, and that the root gives down or not. What the
/// tests enable at the root is taken back, if it was not enabled before.
class any_controller {
  public:
    any_controller()
        : top_(kumiki::cgroup::open(kumiki::cgroup_hierarchy::find().mount().mount_point)) {
        // One test program at a time: else neither would know who enabled it, or could disable it.
        lock_ = kumiki::sys::open_at(top_.fd(), ".", O_RDONLY | O_DIRECTORY);
        ::flock(lock_.get(), LOCK_EX);
        kumiki::for_each_controller(top_.available(), [&](const kumiki::controller_info& info) {
            // cpu and cpuset have conditions of their own (real-time processes).
            if (info.which != kumiki::controllers::cpu && info.which != kumiki::controllers::cpuset)
                found_ = info;
        });
        was_enabled_ = found_ && kumiki::has(top_.enabled(), found_->which);
    }
    any_controller(const any_controller&) = delete;
    any_controller& operator=(const any_controller&) = delete;
    ~any_controller() {
        if (!found_ || was_enabled_) return;
        try {
            top_.write("cgroup.subtree_control", "-" + std::string(found_->name));
        } catch (const kumiki::error&) {
            // Somebody else uses it by now.
        }
    }
    explicit operator bool() const { return found_.has_value(); }
    const kumiki::controller_info& operator*() const { return *found_; }
    bool was_enabled() const { return was_enabled_; }
    const std::string& top() const { return top_.path(); }

  private:
    kumiki::cgroup top_;
    kumiki::unique_fd lock_;
    std::optional<kumiki::controller_info> found_;
    bool was_enabled_ = false;
};

}  // namespace kumiki_test
