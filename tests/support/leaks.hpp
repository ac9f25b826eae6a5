// The leak oracle: what this process and the host hold, as a value. Taken before and after; what
// the kernel releases asynchronously gets two seconds to go.
#pragma once

#include <dirent.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace kumiki_test {

/// What begins the names of this process's containers: other test programs run beside it.
inline std::string group_prefix() { return "test-" + std::to_string(::getpid()) + "-"; }

/// Descriptors, children, mounts, interfaces and control groups.
struct holdings {
    std::multiset<std::string> descriptors;
    std::set<std::string> children;
    std::vector<std::string> mounts;
    std::vector<std::string> links;
    std::set<std::string> groups;

    friend bool operator==(const holdings&, const holdings&) = default;

    static std::vector<std::string> lines(const std::string& path) {
        std::vector<std::string> all;
        std::ifstream file(path);
        for (std::string line; std::getline(file, line);) all.push_back(line);
        return all;
    }

    static holdings now() {
        namespace fs = std::filesystem;
        holdings found;
        std::error_code gone;
        for (const auto& entry : fs::directory_iterator("/proc/self/fd", gone)) {
            auto target = fs::read_symlink(entry.path(), gone).string();
            if (target.find("/proc/") == 0) continue;  // the listing itself
            // Several programs share the group "kumiki": another one may remove it meanwhile, and it
            // is opened anew then, at any number.
            constexpr std::string_view removed = " (deleted)";
            if (target.ends_with(removed)) target.resize(target.size() - removed.size());
            found.descriptors.insert(target.ends_with("/kumiki")
                                         ? target
                                         : entry.path().filename().string() + " " + target);
        }
        for (const auto& task : fs::directory_iterator("/proc/self/task", gone))
            for (const std::string& line : lines(task.path().string() + "/children"))
                if (!line.empty()) found.children.insert(line);
        found.mounts = lines("/proc/self/mountinfo");
        for (const std::string& line : lines("/proc/self/net/dev"))
            found.links.push_back(line.substr(0, line.find(':')));
        for (const char* root : {"/sys/fs/cgroup/kumiki", "/sys/fs/cgroup/unified/kumiki"}) {
            fs::recursive_directory_iterator at(root, gone);
            for (; at != fs::recursive_directory_iterator(); at.increment(gone))
                if (at->path().filename().string().starts_with(group_prefix()))
                    found.groups.insert(at->path().string());
        }
        return found;
    }

    /// Takes stock until it is as `before`, for two seconds at most.
    static holdings settled(const holdings& before) {
        for (int i = 0;; ++i) {
            holdings found = now();
            if (found == before || i == 200) return found;
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    }
};

}  // namespace kumiki_test

/// Checks that nothing is held that was not held `before`.
#define KUMIKI_CHECK_NOTHING_LEFT(before)                                                          \
    do {                                                                                           \
        const auto kumiki_after = ::kumiki_test::holdings::settled(before);                        \
        CHECK(kumiki_after.descriptors == (before).descriptors);                                   \
        CHECK(kumiki_after.children == (before).children);                                         \
        CHECK(kumiki_after.mounts == (before).mounts);                                             \
        CHECK(kumiki_after.links == (before).links);                                               \
        CHECK(kumiki_after.groups == (before).groups);                                             \
    } while (false)
