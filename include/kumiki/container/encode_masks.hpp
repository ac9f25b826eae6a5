// Masked and read-only paths as steps: those of /proc and /sys that every container has, and those
// that its user names.
//
// What covers a path is this plan's own: an empty, read-only directory of the staging tmpfs, one
// superblock for all of them, or an empty file there (CVE-2025-31133: a mask that was a link of the
// image's). The default paths are named by
// the descriptors of the mounts that the plan has made; the user's are resolved inside of the root.
#pragma once

#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/container/mount_steps.hpp>
#include <kumiki/rootfs/defaults.hpp>

namespace kumiki::inline v0::detail {

/// Adds the covers. All mounts are in their places by then.
class masks_encoder {
  public:
    masks_encoder(plan& to, mount_steps& steps, operand staging)
        : plan_(to), steps_(steps), staging_(staging) {
        plan_.begin(phase::masks);
        steps_.make_directory(staging_, "empty", 0555);
        // Not /dev/null, over which a link of the image may have led a mount of the caller's.
        plan_.call("an empty file", SYS_mknodat,
                   {staging_, plan_.text("empty-file"), S_IFREG | 0444, 0});
    }

    /// `is_directory(path)` says of a path of this kernel's /proc or /sys what it is; nothing when
    /// it is not there.
    template <class Kind>
    void defaults(operand proc, operand sys, Kind&& is_directory) {
        const auto mask = [&](operand below, const char* prefix, std::string_view name) {
            const std::string full = prefix + std::string(name);
            const std::optional<bool> directory = is_directory(full);
            if (!directory) return;
            const char* shown = plan_.text("mask on " + full);
            steps_.attach_at(cover(*directory, shown), below, plan_.text(name), shown);
            plan_.tolerate(ENOENT);
        };
        for (const auto name : masked_proc_paths) mask(proc, "/proc/", name);
        for (const auto name : masked_sys_paths) mask(sys, "/sys/", name);
        for (const auto name : readonly_proc_paths) {
            const std::string full = "/proc/" + std::string(name);
            if (!is_directory(full)) continue;
            const char* shown = plan_.text("read-only " + full);
            const slot copy = steps_.copy(proc, plan_.text(name), shown);
            steps_.set_attributes(copy, sys::mount_attr_rdonly, shown);
            steps_.attach_at(copy, proc, plan_.text(name), shown);
        }
    }

    /// `path` is hidden; one that is missing stays so. Which cover it takes is found out by the
    /// child, on the descriptor of what is there.
    void mask(operand root, const std::string& path) {
        const char* shown = plan_.text("mask on " + path);
        constexpr unsigned cover_steps = 4;  // copy, attributes, attach, close
        find(root, path, shown, 2 + cover_steps + 1 + cover_steps + 1);
        plan_.call(shown, SYS_openat, {found(), plan_.text("."), O_PATH | O_DIRECTORY | O_CLOEXEC})
            .into(directory());
        plan_.tolerate(ENOTDIR, 1 + cover_steps + 1);
        plan_.call(shown, SYS_close, {directory()});
        put(true, shown);
        leap(cover_steps, shown);
        put(false, shown);
        plan_.call(shown, SYS_close, {found()});
    }

    /// `path` and all that is mounted below it can be seen and not changed; one that is missing
    /// stays so.
    void read_only(operand root, const std::string& path) {
        const char* shown = plan_.text("read-only " + path);
        find(root, path, shown, 5);
        const slot copy = steps_.copy(found(), "", shown, sys::at_recursive);
        steps_.set_attributes(copy, sys::mount_attributes{.set = sys::mount_attr_rdonly}, shown,
                              sys::at_recursive);
        steps_.attach_on(copy, found(), shown);
        steps_.close_copy(shown);
        plan_.call(shown, SYS_close, {found()});
    }

  private:
    slot cover(bool directory, const char* shown) {
        const slot copy = steps_.copy(staging_, directory ? "empty" : "empty-file", shown);
        steps_.set_attributes(copy, nosuid_nodev_noexec | sys::mount_attr_rdonly, shown);
        return copy;
    }
    /// Four steps: a cover over what was found.
    void put(bool directory, const char* shown) {
        const slot copy = cover(directory, shown);
        steps_.attach_on(copy, found(), shown);
        steps_.close_copy(shown);
    }
    /// Opens what is at `path`, by any links that stay inside; the next `steps` are for what is there.
    void find(operand root, const std::string& path, const char* shown, unsigned steps) {
        plan_
            .call(shown, sys::nr_openat2,
                  {root, plan_.text(path),
                   plan_.object(
                       sys::open_how{.flags = O_PATH | O_CLOEXEC,
                                     .mode = 0,
                                     .resolve = sys::resolve_in_root | sys::resolve_no_magiclinks}),
                   sizeof(sys::open_how)})
            .into(found());
        plan_.tolerate(ENOENT, steps);
    }
    /// The next `steps` are left out: closing no descriptor fails, always.
    void leap(unsigned steps, const char* shown) {
        plan_.call(shown, SYS_close, {-1}).tolerate(EBADF, steps);
    }
    slot found() {
        if (!found_) found_ = plan_.new_slot();
        return *found_;
    }
    slot directory() {
        if (!directory_) directory_ = plan_.new_slot();
        return *directory_;
    }

    plan& plan_;
    mount_steps& steps_;
    operand staging_;
    std::optional<slot> found_;
    std::optional<slot> directory_;
};

}  // namespace kumiki::inline v0::detail
