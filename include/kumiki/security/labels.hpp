// Labels of the kernel's mandatory access control: the AppArmor profile or SELinux context that a
// process is to get with its next execve. Whether the kernel has them, and what is written where.
//
// A label is written to /proc/thread-self/attr, and read back from the same descriptor: a kernel or
// a file that takes the write and does something else was CVE-2019-16884. Sources: apparmor(7),
// proc_pid_attr(5). Kernel: 5.8 for attr/apparmor beside the older attr/exec. Neither profiles nor
// policies are loaded here, and nothing is labelled but processes.
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <string_view>

#include <kumiki/core/error.hpp>
#include <kumiki/core/text.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

/// The two whose labels are text that is set per process.
enum class label_kind : std::uint8_t { apparmor, selinux };

constexpr const char* to_string(label_kind kind) noexcept {
    return kind == label_kind::apparmor ? "AppArmor" : "SELinux";
}

namespace detail {

/// True when `name` is among the modules of security/lsm ("capability,landlock,apparmor").
inline bool is_listed(std::string_view modules, std::string_view name) {
    const auto names = split(trim(modules), ',');
    return std::ranges::find(names, name) != names.end();
}

}  // namespace detail

/// Whether the running kernel enforces labels of this kind. `root` is where its sys/ and proc/ are.
inline bool has_labels(label_kind kind, int root = -1) {
    const auto read = [&](const std::string& path) {
        return sys::try_read_file_at(root < 0 ? AT_FDCWD : root, (root < 0 ? "/" : "") + path);
    };
    const bool apparmor = kind == label_kind::apparmor;
    if (const auto modules = read("sys/kernel/security/lsm"))  // where securityfs is mounted
        return detail::is_listed(*modules, apparmor ? "apparmor" : "selinux");
    if (apparmor) return read("sys/module/apparmor/parameters/enabled").value_or("")[0] == 'Y';
    // Known as a filesystem only where SELinux has been turned on at boot.
    return read("proc/filesystems").value_or("").find("\tselinuxfs\n") != std::string::npos;
}

/// Refuses text that is no label, and one that the kernel would not heed.
/// Errors: invalid_input; unsupported where the kernel has no labels of this kind.
inline void require_label(label_kind kind, std::string_view label, int root = -1) {
    const std::string what = std::string(to_string(kind)) + " label";
    require_c_string(what, label, 4096);  // attr/ takes a page
    if (trim(label).size() != label.size() || label.empty())
        throw invalid_input(what, label, "It must not be empty, or have blanks at its ends.");
    for (const char c : label)
        if (static_cast<unsigned char>(c) < ' ' || c == 0x7f)
            throw invalid_input(what, label, "It has a control character in it.");
    if (has_labels(kind, root)) return;
    throw unsupported(
        EOPNOTSUPP,
        {.operation = "label a process",
         .object = std::string(label),
         .step = {},
         .container = {},
         .remedy = std::string(to_string(kind)) +
                   " is not active in this kernel (/sys/kernel/security/lsm): without the label "
                   "the process would not be confined."});
}

namespace detail {

/// A write that labels the next execve, and what the file then shows.
struct label_payload {
    std::string file;  ///< below /proc
    std::string text;
    /// The label; behind it ends the text, or comes a NUL, a newline, or a blank and the mode.
    std::string shown;
};

/// `root` as above.
inline label_payload prepare_label(label_kind kind, const std::string& label, int root = -1) {
    const std::string directory = "thread-self/attr/";
    if (kind == label_kind::selinux) return {directory + "exec", label, label};
    const std::string own = directory + "apparmor/exec";
    const bool apart =
        sys::try_open_at(root < 0 ? AT_FDCWD : root, (root < 0 ? "/proc/" : "proc/") + own, O_PATH)
            .has_value();
    return {apart ? own : directory + "exec", "exec " + label, label};
}

}  // namespace detail
}  // namespace kumiki::inline v0
