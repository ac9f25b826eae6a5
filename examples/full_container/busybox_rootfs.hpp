// A root filesystem without a download: Debian's static busybox, its applets as symbolic links,
// the few files of /etc that programs look for, and a page for its web server.
#pragma once

#include <string>
#include <string_view>

namespace example {

/// A root filesystem in a temporary directory, which is gone with the object.
class busybox_rootfs {
  public:
    /// Errors: kumiki::error when there is no static busybox, or no room.
    busybox_rootfs();
    busybox_rootfs(const busybox_rootfs&) = delete;
    busybox_rootfs& operator=(const busybox_rootfs&) = delete;
    ~busybox_rootfs();

    const std::string& path() const noexcept { return path_; }
    /// Writes a file at an absolute path inside.
    void write(std::string_view inside, std::string_view text) const;

  private:
    void fill() const;

    std::string path_;
};

}  // namespace example
