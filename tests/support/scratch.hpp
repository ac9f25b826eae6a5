// A directory of a test's own, removed with what is in it (two levels) when the test ends.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki_test {

/// The names in a directory.
inline std::vector<std::string> names_in(const std::string& path) {
    std::vector<std::string> names;
    if (DIR* directory = ::opendir(path.c_str())) {
        while (const dirent* entry = ::readdir(directory))
            if (std::string_view(entry->d_name) != "." && std::string_view(entry->d_name) != "..")
                names.emplace_back(entry->d_name);
        ::closedir(directory);
    }
    return names;
}

class scratch {
  public:
    scratch() {
        char name[] = "/tmp/kumiki-test-XXXXXX";
        if (::mkdtemp(name) == nullptr) kumiki::sys::check(-1, "mkdtemp", name);
        path_ = name;
        directory_ = kumiki::sys::open_at(AT_FDCWD, path_, O_RDONLY | O_DIRECTORY);
    }
    scratch(const scratch&) = delete;
    scratch& operator=(const scratch&) = delete;
    ~scratch() { remove(path_, 3); }
    const std::string& path() const { return path_; }
    int directory() const { return directory_.get(); }

  private:
    static void remove(const std::string& path, int depth) {
        for (const std::string& name : names_in(path)) {
            const std::string inner = path + "/" + name;
            if (::unlink(inner.c_str()) != 0 && depth > 0) remove(inner, depth - 1);
        }
        ::rmdir(path.c_str());
    }

    std::string path_;
    kumiki::unique_fd directory_;
};

}  // namespace kumiki_test
