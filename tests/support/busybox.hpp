// A root filesystem for tests: Debian's static busybox with its applets, in a directory that goes
// with the object.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace kumiki_test {

/// A directory of its own under /tmp.
class temporary_directory {
  public:
    temporary_directory() {
        char name[] = "/tmp/kumiki-test.XXXXXX";
        if (::mkdtemp(name) == nullptr) throw std::runtime_error("mkdtemp");
        path_ = name;
    }
    temporary_directory(const temporary_directory&) = delete;
    temporary_directory& operator=(const temporary_directory&) = delete;
    ~temporary_directory() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    const std::string& path() const noexcept { return path_; }

  private:
    std::string path_;
};

inline void write_text(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
}

/// /bin/busybox and links to it, /etc/passwd, /tmp.
class busybox_root : public temporary_directory {
  public:
    busybox_root() {
        namespace fs = std::filesystem;
        for (const char* name : {"bin", "etc", "tmp", "root", "www"})
            fs::create_directory(path() + "/" + name);
        fs::permissions(path(), fs::perms(0755));
        fs::copy_file("/bin/busybox", path() + "/bin/busybox");
        for (const char* applet :
             {"sh",     "cat",   "ls",    "id",   "mount", "hostname", "ip",   "ps",
              "sleep",  "true",  "false", "echo", "touch", "grep",     "kill", "stty",
              "head",   "wc",    "dd",    "nc",   "wget",  "httpd",    "stat", "readlink",
              "umount", "date",  "mkdir", "tail", "env",   "pwd",      "test", "printf",
              "chmod",  "mknod", "sync",  "tr",   "find",  "nslookup"})
            fs::create_symlink("busybox", path() + "/bin/" + std::string(applet));
        write_text(path() + "/etc/passwd",
                   "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n");
        write_text(path() + "/etc/group", "root:x:0:\nweb:x:1000:\n");
    }
};

}  // namespace kumiki_test
