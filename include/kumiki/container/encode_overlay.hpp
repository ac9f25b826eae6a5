// An overlay as steps, of any number of layers with paths of any length.
//
// fsconfig(2) takes at most 255 bytes in one value, and what would take a longer list piece by piece
// (lowerdir+) is 6.8. Where a value is longer, the layers get links with short names in the staging
// tmpfs, and the overlay is mounted by mount(2), which takes a page of options: that holds 500
// layers, the kernel's own limit, on every kernel. Source: fs/overlayfs/params.c,
// Documentation/filesystems/overlayfs.rst.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <kumiki/container/mount_steps.hpp>

namespace kumiki::inline v0::detail {

/// The directories of an overlay, as the child sees them.
struct overlay_layers {
    std::vector<std::string> lowers{};  ///< topmost first
    std::string upper{};
    std::string work{};
    bool in_user_namespace = false;  ///< marks are kept in user.* attributes: 5.11
};

/// The most that fsconfig takes as a value, without its NUL.
inline constexpr std::size_t most_of_a_value = 255;

/// The value of lowerdir.
inline std::string lowerdir_text(const std::vector<std::string>& lowers) {
    std::string text;
    for (const std::string& lower : lowers) {
        if (!text.empty()) text += ':';
        for (const char c : lower) {
            if (c == ':' || c == '\\') text += '\\';
            text += c;
        }
    }
    return text;
}

/// Adds the steps of one overlay; `staging` is a directory that can be written to, found at
/// `staging_path`. The mount is attached at `name` in it, and its root comes into the slot `mount`.
inline void mount_overlay(plan& to, mount_steps& steps, slot mount, const overlay_layers& layers,
                          operand staging, std::string_view staging_path, const char* name,
                          std::uint64_t attributes, std::string_view shown) {
    const std::string lowers = lowerdir_text(layers.lowers);
    if (lowers.size() <= most_of_a_value && layers.upper.size() <= most_of_a_value &&
        layers.work.size() <= most_of_a_value) {
        steps.mount_into(mount, "overlay", shown,
                         {{"lowerdir", lowers.c_str()},
                          {"upperdir", layers.upper.c_str()},
                          {"workdir", layers.work.c_str()},
                          layers.in_user_namespace ? mount_steps::setting{"userxattr", nullptr}
                                                   : mount_steps::setting{"source", "kumiki"}},
                         attributes);
        steps.attach_at(mount, staging, name, shown);
        return;
    }
    const char* links_name = to.text(std::string(name) + "-layers");
    const slot links = steps.brief_slot();
    steps.make_directory(staging, links_name);
    to.call(shown, SYS_openat, {staging, links_name, O_PATH | O_DIRECTORY | O_CLOEXEC}).into(links);
    const auto link = [&](const std::string& leads_to, const std::string& as) {
        to.call(to.text(leads_to), SYS_symlinkat, {to.text(leads_to), links, to.text(as)});
        return as;
    };
    // Names relative to the working directory: nothing in them has to be escaped, and they are short.
    std::string options = "lowerdir=";
    std::size_t number = 0;
    for (const std::string& lower : layers.lowers) {
        if (number != 0) options += ':';
        options += link(lower, std::to_string(number++));
    }
    options += ",upperdir=" + link(layers.upper, "u");
    options += ",workdir=" + link(layers.work, "w");
    if (layers.in_user_namespace) options += ",userxattr";
    const std::string at = std::string(staging_path) + "/" + name;
    to.call(shown, SYS_fchdir, {links});
    to.call(shown, SYS_mount,
            {to.text("kumiki"), to.text(at), to.text("overlay"), 0, to.text(options)});
    to.call(shown, SYS_openat, {staging, to.text(name), O_PATH | O_DIRECTORY | O_CLOEXEC})
        .into(mount);
    to.call(shown, SYS_close, {links});
    if (attributes != 0) steps.set_attributes(mount, attributes, shown);
}

}  // namespace kumiki::inline v0::detail
