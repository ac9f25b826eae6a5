// The table of hostile root filesystems: at every place that a start touches, every kind of object
// that an image can hold there. Nothing outside of the root may change, whatever the start does.
#include <sys/mount.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/container/container.hpp>

#include "container/hostile.hpp"
#include "container/support.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using namespace std::chrono_literals;
using namespace kumiki_test;
namespace fs = std::filesystem;

namespace {

/// A path that a start resolves, and what it wants to find there.
struct place {
    const char* path;
    wanted_there wanted = wanted_there::directory;
};

constexpr std::array<place, 16> places{{
    {"/"},
    {"/proc"},
    {"/sys"},
    {"/dev"},
    {"/dev/null", wanted_there::file},
    {"/dev/console", wanted_there::file},
    {"/dev/pts"},
    {"/dev/ptmx", wanted_there::file},
    {"/dev/shm"},
    {"/dev/mqueue"},
    {"/etc/resolv.conf", wanted_there::file},
    {"/etc/hosts", wanted_there::file},
    {"/run"},  // a mount of the caller's
    {"/data"},  // a mount of the caller's is two directories below
    {"/data/one"},
    {"/data/one/two"},
}};

/// How the container of a case is made.
struct manner {
    const char* name;
    bool overlay;
    bool terminal;
    bool own_user;
};
constexpr std::array<manner, 4> manners{{
    {"overlay", true, false, false},
    {"directory", false, false, false},
    {"directory and terminal", false, true, false},
    {"overlay, terminal and user namespace", true, true, true},
}};

/// The exit status of a payload that found all mounts in their places.
constexpr int all_is_well = 42;

/// Looks at what the start has mounted, then writes to every place that is the container's own.
constexpr const char* payload =
    "[ -e /proc/self/stat ] && [ -d /sys/kernel ] && [ -c /dev/null ] && [ -e /dev/ptmx ] && "
    "[ -d /dev/shm ] && read line < /etc/hosts && well=42; "
    "for p in /run /data/one/two /dev/shm /dev/mqueue /dev/null /etc/hosts /etc/resolv.conf; do "
    "echo spoiled > $p || echo spoiled > $p/probe; done 2>/dev/null; exit ${well:-1}";

/// An image that is good but for one object. Its own mount is taken away before it is removed.
class hostile_image {
  public:
    hostile_image(const std::string& busybox, const place& where, hostile_kind kind,
                  const sentinel_tree& sentinel) {
        const std::string good = base_.path() + "/image";
        fs::create_directories(good + "/bin");
        fs::create_directory(good + "/etc");
        must(::link(busybox.c_str(), (good + "/bin/busybox").c_str()) == 0, "link busybox");
        fs::create_symlink("busybox", good + "/bin/sh");
        if (std::string_view(where.path) == "/") {
            make_root(good, kind, sentinel);
            return;
        }
        root_ = good;
        const std::string at = good + where.path;
        fs::create_directories(fs::path(at).parent_path());
        make_hostile(kind, at, where.wanted, sentinel);
        if (kind != hostile_kind::nested_mount) return;
        mount_ = at;
        // Below these two a start makes what is missing, as it may in a mount that can be written
        // to: this one says that it cannot.
        if (std::string_view(where.path) == "/data" || std::string_view(where.path) == "/data/one")
            must(::mount(nullptr, at.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) ==
                     0,
                 "remount " + at);
    }
    ~hostile_image() {
        // Rather than remove what is behind a mount, stop.
        if (!mount_.empty() && ::umount2(mount_.c_str(), MNT_DETACH) != 0) ::abort();
    }
    const std::string& root() const { return root_; }

  private:
    /// The root itself is the hostile object.
    void make_root(const std::string& good, hostile_kind kind, const sentinel_tree& sentinel) {
        root_ = base_.path() + "/root";
        if (kind == hostile_kind::longest_path) {
            root_ = longest_path_to(good);
        } else if (kind == hostile_kind::nested_mount) {
            fs::create_directory(root_);
            must(::mount(good.c_str(), root_.c_str(), nullptr, MS_BIND, nullptr) == 0, "mount");
            mount_ = root_;
        } else if (kind == hostile_kind::full_directory) {
            root_ = good;
        } else {
            const bool file = kind == hostile_kind::hard_link;
            make_hostile(kind, root_, file ? wanted_there::file : wanted_there::directory,
                         sentinel);
        }
    }

    temporary_directory base_;
    std::string root_;
    std::string mount_;
};

/// How a start ended: the exit status of its payload, or the step that failed.
struct outcome_of_case {
    std::optional<int> status;
    std::string step;
};

outcome_of_case start_on(scheduler& io, const std::string& root, const manner& how,
                         const std::string& volume, int null) {
    static int number = 0;
    container_spec spec;
    spec.name = group_prefix() + "hostile" + std::to_string(number++);
    spec.rootfs = how.overlay ? rootfs::overlay(root) : rootfs::directory(root);
    spec.process.args = {"/bin/sh", "-c", payload};
    spec.process.stdio = {null, null, null};
    spec.mounts = {tmpfs_mount{.target = "/run"},
                   bind_mount{.source = volume, .target = "/data/one/two"}};
    spec.start_limit = 10s;
    if (how.terminal) spec.process.terminal = terminal_size{};
    if (how.own_user) spec.user_namespace = mapped_ids();
    try {
        const auto result = io.run(start_and_wait(io, std::move(spec)));
        return {result.exit_code(), {}};
    } catch (const error& failure) {
        INFO(failure.what());
        CHECK_FALSE(failure.step().empty());
        return {std::nullopt, failure.step().empty() ? "none" : failure.step()};
    }
}

bool is_link(hostile_kind kind) {
    return kind == hostile_kind::absolute_link || kind == hostile_kind::climbing_link ||
           kind == hostile_kind::link_loop || kind == hostile_kind::dangling_link ||
           kind == hostile_kind::longest_path;
}

/// What must come of a case: the payload runs ("runs"), a step fails (its name), or either ("").
std::string expected(const place& where, hostile_kind kind) {
    const std::string_view path = where.path;
    const bool directory =
        kind == hostile_kind::full_directory || kind == hostile_kind::nested_mount;
    // The container's /dev is its own: nothing that the image has there is ever looked at.
    if (path.starts_with("/dev/")) return "runs";
    if (path == "/proc" || path == "/sys" || path == "/dev")
        return directory ? "runs" : std::string(path.substr(1));
    if (path == "/") {
        if (directory || kind == hostile_kind::longest_path) return "";
        return "root";
    }
    if (where.wanted == wanted_there::file) {
        if (is_link(kind) || kind == hostile_kind::full_directory) return "mounts";
        return "runs";
    }
    if (kind == hostile_kind::nested_mount && (path == "/data" || path == "/data/one")) return "";
    return directory ? "runs" : "mounts";
}

}  // namespace

TEST_CASE("hostile root filesystems in a process with mounts of its own", "[.apart]") {
    enter_own_mounts();
    const temporary_directory shelf;
    const std::string busybox = shelf.path() + "/busybox";
    fs::copy_file("/bin/busybox", busybox);
    const temporary_directory volume;
    const sentinel_tree sentinel;
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDWR);
    scheduler io;
    {  // a good image, so that what the library keeps for good is there
        const hostile_image good(busybox, places[1], hostile_kind::full_directory, sentinel);
        for (const manner& how : manners)
            REQUIRE(start_on(io, good.root(), how, volume.path(), null.get()).status ==
                    all_is_well);
    }
    std::size_t cases = 0;
    std::size_t ran = 0;
    for (const place& where : places) {
        const auto before = holdings::now();
        for (std::size_t number = 0; number < hostile_kinds; ++number) {
            const auto kind = static_cast<hostile_kind>(number);
            for (const manner& how : manners) {
                const hostile_image image(busybox, where, kind, sentinel);
                CAPTURE(where.path, hostile_kind_names[number], how.name);
                const auto untouched = tree_witness::of(sentinel);
                const auto seen = start_on(io, image.root(), how, volume.path(), null.get());
                CHECK(tree_witness::of(sentinel).changes_since(untouched) == "");
                CAPTURE(seen.step);
                if (seen.status) CHECK(*seen.status == all_is_well);
                // An overlay shows its layer without what is mounted in it: an empty place.
                const bool hidden = how.overlay && kind == hostile_kind::nested_mount;
                const std::string wanted = hidden ? "runs" : expected(where, kind);
                if (!wanted.empty()) CHECK((seen.status ? "runs" : seen.step) == wanted);
                ++cases;
                ran += seen.status ? 1 : 0;
            }
        }
        CAPTURE(where.path);
        KUMIKI_CHECK_NOTHING_LEFT(before);
    }
    CHECK(cases == places.size() * hostile_kinds * manners.size());
    CHECK(cases >= 168);
    CHECK(ran >= cases / 3);
}

TEST_CASE("no object at any place of a root filesystem leads a start to the host") {
    std::string output;
    const int status =
        run_apart("hostile root filesystems in a process with mounts of its own", output);
    INFO(output);
    CHECK(status == 0);
    CHECK(output.find("kumiki: 1 passed, 0 failed") != std::string::npos);
}
