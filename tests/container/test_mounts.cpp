// What the user wants mounted, as the container and the host see it: each kind from inside, by
// mountinfo, stat and what can and cannot be done, and the host's own mounts unchanged.
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <filesystem>
#include <string>
#include <vector>

#include <kumiki/container/container.hpp>
#include <kumiki/rootfs/host_system.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::busybox;
using kumiki_test::busybox_root;
using kumiki_test::contains;
using kumiki_test::holdings;
using kumiki_test::line_of;
using kumiki_test::run_shell;
using kumiki_test::shell;
using kumiki_test::temporary_directory;
using kumiki_test::with_users;
using kumiki_test::write_text;
namespace fs = std::filesystem;

namespace {

/// What `script` says in a container with these mounts.
std::string inside(std::string script, std::vector<mount_description> mounts) {
    return run_shell(shell(std::move(script), std::move(mounts))).output;
}

using kumiki_test::refusal;
error refusal(mount_description wanted) { return refusal(shell("true", {std::move(wanted)})); }

/// A tmpfs in a mount namespace of this thread's own.
template <class Function>
void in_own_mounts(Function&& function) {
    sys::on_own_thread([&] {
        sys::check(::unshare(CLONE_FS | CLONE_NEWNS), "unshare");
        sys::check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make private");
        function();
    });
}

}  // namespace

TEST_CASE("a bind mount has the flags that are set and not those that are cleared") {
    const temporary_directory place;
    write_text(place.path() + "/run", "#!/bin/sh\necho ran\n");
    fs::permissions(place.path() + "/run", fs::perms(0755));
    const auto line = [&](bind_mount wanted) {
        wanted.source = place.path();
        wanted.target = "/data";
        const std::string options = inside(line_of("/data"), {wanted});
        return "," + options.substr(0, options.find(' ')) + ",";
    };
    const std::string plain = line({});
    CHECK(contains(plain, ",rw,"));
    CHECK(contains(plain, ",nosuid,"));
    CHECK(contains(plain, ",nodev,"));
    CHECK_FALSE(contains(plain, ",noexec,"));
    const std::string other = line({.access = access_mode::read_only,
                                    .set = mount_flag::noexec | mount_flag::nodiratime,
                                    .clear = mount_flag::nosuid | mount_flag::nodev,
                                    .times = access_times::noatime});
    for (const char* present : {",ro,", ",noexec,", ",nodiratime,", ",noatime,"}) {
        CAPTURE(present, other);
        CHECK(contains(other, present));
    }
    CHECK_FALSE(contains(other, ",nosuid,"));
    CHECK_FALSE(contains(other, ",nodev,"));
    CHECK(contains(line({.times = access_times::relatime}), ",relatime,"));
    const std::string strict = line({.times = access_times::strictatime});
    CHECK_FALSE(contains(strict, "relatime"));
    CHECK_FALSE(contains(strict, "noatime"));
    const auto run = [&](mount_flag set) {
        return inside("/data/run",
                      {bind_mount{.source = place.path(), .target = "/data", .set = set}});
    };
    CHECK(run(mount_flag::none) == "ran\n");
    CHECK(contains(run(mount_flag::noexec), "ermission denied"));
}

TEST_CASE("nosymfollow keeps a mount's links from leading anywhere") {
    const temporary_directory place;
    write_text(place.path() + "/file", "text\n");
    fs::create_symlink("file", place.path() + "/link");
    const auto read = [&](mount_flag set) {
        return inside("cat /data/link",
                      {bind_mount{.source = place.path(), .target = "/data", .set = set}});
    };
    CHECK(read(mount_flag::none) == "text\n");
    CHECK(contains(read(mount_flag::nosymfollow), "symbolic links"));
}

TEST_CASE("attributes hold for the mounts below, or for the top alone") {
    const temporary_directory place;
    fs::create_directories(place.path() + "/below");
    // Held where the tmpfs is; the container is started from where it is not.
    const auto probe = [&](bind_depth reach) {
        std::string seen;
        in_own_mounts([&] {
            sys::check(::mount("tmpfs", (place.path() + "/below").c_str(), "tmpfs", 0, nullptr),
                       "mount");
            seen = inside(
                "touch /data/a 2>/dev/null && echo top; "
                "touch /data/below/a 2>/dev/null && echo below; " +
                    line_of("/data/below"),
                {bind_mount{.source = place.path(),
                            .target = "/data",
                            .access = access_mode::read_only,
                            .set = mount_flag::noexec,
                            .attributes = reach}});
        });
        return seen;
    };
    const std::string all = probe(bind_depth::recursive);
    CHECK(all.starts_with("ro,noexec"));
    const std::string top = probe(bind_depth::single);
    CHECK(top.starts_with("below\nrw"));
    CHECK_FALSE(contains(top, "noexec"));
}

TEST_CASE("files and sockets can be mounted, and what is missing of the target is root's") {
    const temporary_directory place;
    write_text(place.path() + "/file", "text\n");
    fs::permissions(place.path() + "/file", fs::perms(0600));
    const unique_fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = place.path() + "/socket";
    std::copy(path.begin(), path.end(), address.sun_path);
    REQUIRE(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    CHECK(inside("cat /a/b/file; test -S /run/s && echo socket; stat -c '%u:%g %a' /a /a/b",
                 {bind_mount{.source = place.path() + "/file", .target = "/a/b/file"},
                  bind_mount{.source = path, .target = "/run/s"}}) ==
          "text\nsocket\n0:0 755\n0:0 755\n");
    CHECK_FALSE(fs::exists(busybox().path() + "/a"));
}

TEST_CASE("the host's later mounts appear in a slave and in no private mount") {
    const temporary_directory place;
    fs::create_directories(place.path() + "/shared/later");
    in_own_mounts([&] {
        const std::string shared = place.path() + "/shared";
        sys::check(::mount("tmpfs", shared.c_str(), "tmpfs", 0, nullptr), "mount");
        sys::check(::mount(nullptr, shared.c_str(), nullptr, MS_SHARED, nullptr), "share");
        fs::create_directory(shared + "/later");
        scheduler io;
        for (const auto propagation : {mount_propagation::slave, mount_propagation::private_,
                                       mount_propagation::unbindable, mount_propagation::shared}) {
            auto spec = shell(
                "sleep 30",
                {bind_mount{.source = shared, .target = "/data", .propagation = propagation}});
            kumiki_test::with_container(io, std::move(spec), [&](container& box) {
                const auto lines = [&] {
                    std::string found;
                    const auto all =
                        holdings::lines("/proc/" + std::to_string(box.pid()) + "/mountinfo");
                    for (const auto& line : all)
                        if (contains(line, " /data")) found += line + "\n";
                    return found;
                };
                const std::string before = lines();
                CHECK(contains(before, "master:") == (propagation == mount_propagation::slave));
                CHECK(contains(before, "shared:") == (propagation == mount_propagation::shared));
                CHECK(contains(before, "unbindable") ==
                      (propagation == mount_propagation::unbindable));
                sys::check(::mount("tmpfs", (shared + "/later").c_str(), "tmpfs", 0, nullptr),
                           "mount");
                CHECK(contains(lines(), " /data/later ") ==
                      (propagation == mount_propagation::slave ||
                       propagation == mount_propagation::shared));
                sys::check(::umount((shared + "/later").c_str()), "umount");
            });
        }
    });
    CHECK(refusal(with_users(shell("true", {bind_mount{.source = place.path(),
                                                       .target = "/data",
                                                       .propagation = mount_propagation::shared}})))
              .operation() == "invalid propagation");
}

TEST_CASE("the root is a slave or shared where that is wanted") {
    const temporary_directory place;
    CHECK(inside(line_of("/"), {}).find("shared:") == std::string::npos);
    auto spec = shell(line_of("/"));
    spec.root_propagation = mount_propagation::shared;
    CHECK(contains(run_shell(std::move(spec)).output, "shared:"));
    spec = shell(line_of("/"));
    spec.rootfs = rootfs::directory(busybox().path());
    spec.root_propagation = mount_propagation::shared;
    CHECK(contains(run_shell(std::move(spec)).output, "shared:"));
    spec = shell(line_of("/"));
    spec.root_propagation = mount_propagation::unbindable;
    CHECK(contains(run_shell(std::move(spec)).output, "unbindable"));
    in_own_mounts([&] {
        sys::check(
            ::mount(busybox().path().c_str(), place.path().c_str(), nullptr, MS_BIND, nullptr),
            "bind");
        sys::check(::mount(nullptr, place.path().c_str(), nullptr, MS_SHARED, nullptr), "share");
        auto slave = shell(line_of("/"));
        slave.rootfs = rootfs::directory(place.path());
        slave.root_propagation = mount_propagation::slave;
        CHECK(contains(run_shell(std::move(slave)).output, "master:"));
    });
}

TEST_CASE("owners of a mount are shown by its own id map") {
    const temporary_directory place;
    fs::permissions(place.path(), fs::perms(0755));
    write_text(place.path() + "/root", "");
    write_text(place.path() + "/web", "");
    sys::check(::chown((place.path() + "/web").c_str(), 1000, 1000), "chown");
    const auto owners = [&](container_spec spec, std::optional<id_mapping> ids) {
        spec.process.args.back() =
            "cd /data; stat -c '%n %u:%g' root web; touch made && "
            "stat -c '%n %u:%g' made";
        spec.mounts = {bind_mount{.source = place.path(), .target = "/data", .ids = ids}};
        return run_shell(std::move(spec)).output;
    };
    try {
        const id_mapping shifted{.users = {{0, 5000, 2000}}, .groups = {{0, 6000, 2000}}};
        const std::string seen = owners(shell(""), shifted);
        CHECK(seen.starts_with("root 5000:6000\nweb 6000:7000\n"));
        // Users of its own: root's files are those of its root, and it makes more of them.
        CHECK(owners(with_users(shell("")), id_mapping::same()) ==
              "root 0:0\nweb 1000:1000\nmade 0:0\n");
        struct stat made{};
        REQUIRE(::stat((place.path() + "/made").c_str(), &made) == 0);
        CHECK(made.st_uid == 0);
        CHECK(owners(with_users(shell("")), std::nullopt).starts_with("root 65534:65534\n"));
    } catch (const error& failure) {
        if (!contains(failure.remedy(), "id-mapped")) throw;
        KUMIKI_SKIP("the filesystem of /tmp has no id-mapped mounts");
    }
}

TEST_CASE("a filesystem without id-mapped mounts is named, with what can be done") {
    const error failure =
        refusal(bind_mount{.source = "/proc/sys", .target = "/data", .ids = id_mapping::same()});
    CHECK(failure.errno_value() == EINVAL);
    CHECK(failure.object() == "/proc/sys");
    CHECK(contains(failure.remedy(), "(proc)"));
    CHECK(contains(failure.remedy(), "id-mapped"));
    const id_mapping beyond{.users = {{0, 70000, 1}}, .groups = {{0, 0, 1}}};
    CHECK(refusal(with_users(shell(
                      "true", {bind_mount{.source = "/etc", .target = "/data", .ids = beyond}})))
              .operation() == "invalid shown owner");
}

TEST_CASE("a tmpfs has its size, its mode, its inodes and its flags") {
    const std::string seen =
        inside(line_of("/t") +
                   "; stat -c '%a %u' /t; df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2;"
                   " i=0; while touch /t/$i 2>/dev/null; do i=$((i+1)); done; echo $i",
               {tmpfs_mount{.target = "/t",
                            .size = 3_MiB,
                            .mode = 01750,
                            .inodes = 10,
                            .flags = mount_flag::noexec}});
    const auto end = seen.find('\n');
    const std::string line = seen.substr(0, end);
    CHECK(contains(line, "noexec"));
    CHECK_FALSE(contains(line, "nosuid"));
    CHECK(contains(line, "size=3072k"));
    CHECK(contains(line, "nr_inodes=10"));
    CHECK(seen.substr(end + 1) == "1750 0\n3072\n9\n");
    CHECK(inside("touch /t/a 2>/dev/null || echo ro",
                 {tmpfs_mount{.target = "/t", .access = access_mode::read_only}}) == "ro\n");
}

TEST_CASE("more mounts than there are slots in a plan find their places") {
    std::vector<mount_description> mounts;
    for (int i = 0; i < 200; ++i)
        mounts.push_back(tmpfs_mount{.target = "/t" + std::to_string(i), .size = 1_MiB});
    const temporary_directory place;
    for (int i = 0; i < 60; ++i)
        mounts.push_back(
            overlay_mount{.target = "/o" + std::to_string(i), .lowers = {place.path()}});
    CHECK(inside("grep -c ' /[to][0-9]* ' /proc/self/mountinfo", std::move(mounts)) == "260\n");
}

TEST_CASE("a copy-up tmpfs begins with what the image has, and keeps the changes to itself") {
    const temporary_directory place;
    fs::copy(busybox().path(), place.path(),
             fs::copy_options::recursive | fs::copy_options::copy_symlinks);
    fs::create_directories(place.path() + "/data/deep");
    write_text(place.path() + "/data/kept", "image\n");
    write_text(place.path() + "/data/deep/gone", "image\n");
    const bool own_users = GENERATE(false, true);
    const bool overlaid = GENERATE(false, true);
    CAPTURE(own_users, overlaid);
    auto spec = shell(
        "cat /data/kept; rm /data/deep/gone; echo mine > /data/kept; ls -R /data; "
        "cat /data/kept; stat -c %a /data; " +
            line_of("/data") +
            "; dd if=/dev/zero of=/data/big bs=1M count=4 2>&1 | grep -o 'No space.*'",
        {tmpfs_mount{
            .target = "/data", .size = 2_MiB, .mode = 0750, .content = tmpfs_content::copy_up}});
    spec.rootfs = overlaid ? rootfs::overlay(place.path())
                           : rootfs::directory(place.path(), access_mode::read_only);
    if (own_users) spec = with_users(std::move(spec));
    try {
        const std::string seen = run_shell(std::move(spec)).output;
        CHECK(contains(seen, "image\n/data:\ndeep\nkept\n\n/data/deep:\nmine\n750\n"));
        CHECK(contains(seen, "nosuid"));
        CHECK(contains(seen, "No space"));
        CHECK_FALSE(contains(seen, place.path()));
    } catch (const error& failure) {
        if (!contains(failure.remedy(), "id-mapped")) throw;
        KUMIKI_SKIP("the filesystem of /tmp has no id-mapped mounts");
    }
    CHECK(sys::read_file_at(AT_FDCWD, place.path() + "/data/kept") == "image\n");
    CHECK(fs::exists(place.path() + "/data/deep/gone"));
}

TEST_CASE("a file from memory has its content, its mode and its owner") {
    std::string large(300000, 'x');
    large += "\n";
    const bool own_users = GENERATE(false, true);
    CAPTURE(own_users);
    auto spec = shell(
        "cat /etc/motd; stat -c '%a %u:%g' /etc/motd /run/key; "
        "echo x > /etc/motd || echo refused; echo y >> /run/key && cat /run/key; "
        "wc -c < /large; stat -c %s /none",
        {file_mount{.target = "/etc/motd", .content = "hello\n"},
         file_mount{.target = "/run/key",
                    .content = "secret\n",
                    .mode = 0640,
                    .user = 1000,
                    .group = 7,
                    .access = access_mode::read_write},
         file_mount{.target = "/large", .content = large}, file_mount{.target = "/none"}});
    if (own_users) spec = with_users(std::move(spec));
    try {
        CHECK(run_shell(std::move(spec)).output ==
              "hello\n644 0:0\n640 1000:7\nsh: can't create /etc/motd: Read-only file system\n"
              "refused\nsecret\ny\n300001\n0\n");
    } catch (const error& failure) {
        if (!contains(failure.remedy(), "id-mapped")) throw;
        KUMIKI_SKIP("the filesystem of /tmp has no id-mapped mounts");
    }
    CHECK_FALSE(fs::exists(busybox().path() + "/etc/motd"));
    CHECK(refusal(with_users(shell("true", {file_mount{.target = "/a", .user = 70000}})))
              .operation() == "invalid owner");
}

TEST_CASE("links and directories are made inside of the root, and found as they are described") {
    fs::remove_all(busybox().path() + "/none");
    CHECK(inside("readlink /a/link; readlink /abs; stat -c '%a %u:%g' /work /a; ls -d /abs/",
                 {symlink_entry{.target = "/a/link", .leads_to = "../nowhere"},
                  symlink_entry{.target = "/abs", .leads_to = "/etc"},
                  directory_entry{.target = "/work", .mode = 01711, .user = 1000, .group = 7},
                  directory_entry{.target = "/etc", .mode = 0700},
                  directory_entry{.target = "/abs/below"}}) ==
          "../nowhere\n/etc\n1711 1000:7\n755 0:0\n/abs/\n");
    const error taken = refusal(symlink_entry{.target = "/etc", .leads_to = "/x"});
    CHECK(taken.errno_value() == EEXIST);
    CHECK(taken.object() == "symbolic link /etc");
    const error file = refusal(directory_entry{.target = "/etc/passwd"});
    CHECK(file.errno_value() == ENOTDIR);
}

TEST_CASE("a device has its type, numbers, mode and owner, below /dev alone") {
    const std::string seen = inside(
        "cd /dev; stat -c '%n %F %t:%T %a %u:%g' net/tun disk null; ls",
        {device_mount{.target = "/dev/net/tun",
                      .major = 10,
                      .minor = 200,
                      .mode = 0600,
                      .user = 1000,
                      .group = 7},
         device_mount{.target = "/dev/disk", .type = device_type::block, .major = 7, .minor = 259},
         device_mount{.target = "/dev/null", .major = 1, .minor = 3, .mode = 0640}});
    CHECK(contains(seen,
                   "net/tun character special file a:c8 600 1000:7\n"
                   "disk block special file 7:103 666 0:0\n"
                   "null character special file 1:3 640 0:0\n"));
    CHECK(refusal(device_mount{.target = "/x", .major = 1, .minor = 3}).operation() ==
          "invalid device");
    CHECK(refusal(device_mount{.target = "/dev/null", .major = 1, .minor = 5}).operation() ==
          "invalid device");
}

TEST_CASE("with users of its own a container is shown the host's node, once it is the right one") {
    const temporary_directory place;
    const std::string node = place.path() + "/node";
    REQUIRE(::mknod(node.c_str(), S_IFCHR | 0644, ::makedev(1, 5)) == 0);
    auto spec = with_users(
        shell("head -c 4 /dev/nil | wc -c; stat -c '%t:%T' /dev/nil",
              {device_mount{.target = "/dev/nil", .major = 1, .minor = 5, .source = node}}));
    spec.rootfs = rootfs::assembled();
    spec.mounts.insert(spec.mounts.begin(),
                       bind_mount{.source = busybox().path() + "/bin", .target = "/bin"});
    // /tmp is mounted nodev on many hosts: what counts is the flag of the copy.
    CHECK(run_shell(spec).output == "4\n1:5\n");
    std::get<device_mount>(spec.mounts.back()).minor = 7;
    const error wrong = refusal(spec);
    CHECK(wrong.operation() == "invalid device");
    CHECK(contains(wrong.object(), node));
    std::get<device_mount>(spec.mounts.back()).source = "/nowhere";
    CHECK(refusal(spec).errno_value() == ENOENT);
}

TEST_CASE("an overlay can be mounted at any place") {
    const temporary_directory place;
    for (const char* layer : {"low", "top", "upper", "work"})
        fs::create_directory(place.path() + "/" + layer);
    write_text(place.path() + "/low/a", "low\n");
    write_text(place.path() + "/low/b", "low\n");
    write_text(place.path() + "/top/b", "top\n");
    const overlay_mount layers{.target = "/data",
                               .lowers = {place.path() + "/top", place.path() + "/low"}};
    CHECK(inside("cat /data/a /data/b; echo x > /data/a; cat /data/a", {layers}) ==
          "low\ntop\nx\n");
    overlay_mount read_only = layers;
    read_only.access = access_mode::read_only;
    CHECK(inside("echo x 2>/dev/null > /data/a || cat /data/a", {read_only}) == "low\n");
    overlay_mount kept = layers;
    kept.upper = {.upper = place.path() + "/upper", .work = place.path() + "/work"};
    CHECK(inside("echo x > /data/a", {kept}).empty());
    CHECK(sys::read_file_at(AT_FDCWD, place.path() + "/upper/a") == "x\n");
    CHECK(sys::read_file_at(AT_FDCWD, place.path() + "/low/a") == "low\n");
    overlay_mount proc = layers;
    proc.lowers.push_back("/proc/sys");
    CHECK(refusal(proc).operation() == "invalid rootfs");
}

TEST_CASE("a root is assembled from the host's directories on a tmpfs") {
    const bool own_users = GENERATE(false, true);
    CAPTURE(own_users);
    const auto before = holdings::now().mounts;
    container_spec spec = shell("");
    spec.rootfs = rootfs::assembled({.size = 1_MiB, .mode = 0711});
    spec.mounts = host_system();
    spec.mounts.push_back(tmpfs_mount{.target = "/tmp"});
    spec.mounts.push_back(file_mount{.target = "/etc/passwd", .content = "root:x:0:0::/:\n"});
    spec.process.args = {"/bin/sh", "-c",
                         "stat -c '%a %u %F' /; ls -m /; touch /usr/x; id -un; " +
                             std::string("grep ' / / ' /proc/self/mountinfo | sed 's/.* - //'; ") +
                             "touch /x && echo writable; cat /proc/self/mountinfo"};
    if (own_users) spec = with_users(std::move(spec));
    const std::string seen = run_shell(std::move(spec)).output;
    CHECK(seen.starts_with("711 0 directory\n"));
    CHECK(contains(seen, "bin, dev, etc, lib"));
    CHECK(contains(seen, "Read-only file system\nroot\ntmpfs none rw"));
    CHECK(contains(seen, "size=1024k"));
    CHECK(contains(seen, "mode=711"));
    CHECK(contains(seen, "writable\n"));
    for (const auto& line : holdings::now().mounts)
        if (contains(line, " /home ") || contains(line, " /root "))
            CHECK_FALSE(contains(seen, line));
    CHECK(holdings::now().mounts == before);

    spec = shell("");
    spec.rootfs = rootfs::assembled().read_only();
    spec.mounts = host_system();
    spec.process.args = {"/bin/sh", "-c", "touch /x 2>/dev/null || echo refused"};
    CHECK(run_shell(std::move(spec)).output == "refused\n");
}

TEST_CASE("paths are masked and made read-only wherever they are, and missing ones left out") {
    const bool own_users = GENERATE(false, true);
    CAPTURE(own_users);
    auto spec = shell(
        "cat /etc/secret /etc/link; ls /www; ls /data/in; "
        "echo x 2>/dev/null > /data/file || echo read-only; "
        "touch /tmp/x 2>/dev/null || echo tmp; touch /data/new && echo data; "
        "(echo x > /etc/secret) 2>/dev/null; stat -c %s /etc/secret; test -e /none || echo none; "
        "cat /proc/uptime; cat /proc/version; " +
            line_of("/www"),
        {file_mount{.target = "/etc/secret", .content = "secret\n"},
         symlink_entry{.target = "/etc/link", .leads_to = "/etc/hidden"},
         file_mount{.target = "/etc/hidden", .content = "hidden\n"},
         file_mount{.target = "/www/page", .content = "page\n"}, tmpfs_mount{.target = "/data"},
         directory_entry{.target = "/data/in/deep"},
         file_mount{.target = "/data/file", .content = "", .access = access_mode::read_write}});
    spec.masked_paths = {"/etc/secret", "/etc/link",  "/www",        "/data/in",
                         "/none",       "/none/deep", "/proc/uptime"};
    spec.readonly_paths = {"/data/file", "/tmp", "/nothing", "/proc/version"};
    if (own_users) spec = with_users(std::move(spec));
    try {
        const std::string seen = run_shell(std::move(spec)).output;
        CHECK(seen.starts_with("read-only\ntmp\ndata\n0\nnone\nLinux version"));
        CHECK_FALSE(contains(seen, "secret"));
        CHECK_FALSE(contains(seen, "hidden"));
        CHECK(contains(seen, "ro,nosuid,nodev,noexec"));
    } catch (const error& failure) {
        if (!contains(failure.remedy(), "id-mapped")) throw;
        KUMIKI_SKIP("the filesystem of /tmp has no id-mapped mounts");
    }
    auto root = shell("true");
    root.masked_paths = {"/"};
    CHECK(refusal(std::move(root)).operation() == "invalid masked path");
    root = shell("true");
    root.readonly_paths = {"/a/../b"};
    CHECK(refusal(std::move(root)).operation() == "invalid read-only path");
}

TEST_CASE("all masks of directories are of one superblock, and it is not the image's") {
    auto spec = shell("for d in /www /root /tmp; do stat -c %d $d; done; stat -c %d /etc", {});
    spec.masked_paths = {"/www", "/root", "/tmp"};
    const auto seen = run_shell(std::move(spec)).output;
    const auto lines = split(seen, '\n');
    REQUIRE(lines.size() >= 4);
    CHECK(lines[0] == lines[1]);
    CHECK(lines[1] == lines[2]);
    CHECK(lines[2] != lines[3]);
}

TEST_CASE("a link of the image does not lead a mask or a read-only path out of the root") {
    const temporary_directory outside;
    write_text(outside.path() + "/file", "outside\n");
    auto spec = shell("cat /link; cat /etc/passwd | head -1",
                      {symlink_entry{.target = "/link", .leads_to = outside.path() + "/file"},
                       symlink_entry{.target = "/up", .leads_to = "../../../../etc/passwd"}});
    spec.masked_paths = {"/link"};  // its end is missing inside
    spec.readonly_paths = {"/up"};  // it ends at the root's own
    const auto seen = run_shell(std::move(spec)).output;
    CHECK(contains(seen, "can't open '/link': No such file"));
    CHECK(contains(seen, "root:x:0:0"));
    write_text(outside.path() + "/file", "still writable\n");
    CHECK(sys::read_file_at(AT_FDCWD, outside.path() + "/file") == "still writable\n");
}

TEST_CASE("the paths of the system are open only where that is said") {
    auto spec = shell("grep -c ' /proc/' /proc/self/mountinfo");
    CHECK(std::stoi(run_shell(spec).output) > 5);
    spec.name += "-open";
    spec.system_paths = system_paths_mode::open;
    CHECK(run_shell(spec).output == "0\n");
}

TEST_CASE("an overlay of a hundred layers with long paths holds all of them") {
    const temporary_directory place;
    const int count = GENERATE(3, 120);
    CAPTURE(count);
    std::vector<std::string> layers;
    for (int i = 0; i < count; ++i) {
        std::string path = place.path() + "/" + std::string(120, 'd') + ":,\\" + std::to_string(i);
        fs::create_directory(path);
        write_text(path + "/only-" + std::to_string(i), "");
        write_text(path + "/all", std::to_string(i) + "\n");
        layers.push_back(std::move(path));
    }
    layers.push_back(busybox().path());
    const std::string upper = place.path() + "/" + std::string(250, 'u');
    const std::string work = place.path() + "/" + std::string(250, 'w');
    fs::create_directory(upper);
    fs::create_directory(work);
    const bool own_users = GENERATE(false, true);
    const bool kept = GENERATE(false, true);
    if (own_users && kept) return;  // the upper directory would be of another owner
    CAPTURE(own_users, kept);
    auto spec = shell(
        "ls / | grep -c only-; cat /all; echo x > /made; cat /made; "
        "mknod /node c 1 3 2>/dev/null && head -c1 /node; echo end");
    spec.rootfs =
        kept ? rootfs::overlay(layers, {.upper = upper, .work = work}) : rootfs::overlay(layers);
    if (own_users) spec = with_users(std::move(spec));
    try {
        const auto seen = run_shell(std::move(spec)).output;
        CHECK(seen.starts_with(std::to_string(count) + "\n0\nx\n"));
        CHECK(seen.ends_with("end\n"));
    } catch (const error& failure) {
        if (!contains(failure.remedy(), "id-mapped")) throw;
        KUMIKI_SKIP("the filesystem of /tmp has no id-mapped mounts");
    }
    CHECK(fs::exists(upper + "/made") == kept);
}

TEST_CASE("two containers cannot write to one upper directory") {
    const temporary_directory place;
    const std::string upper = place.path() + "/upper";
    const std::string work = place.path() + "/work";
    fs::create_directory(upper);
    fs::create_directory(work);
    const auto spec = [&](std::string script) {
        auto made = shell(std::move(script));
        made.rootfs = rootfs::overlay(busybox().path(), {.upper = upper, .work = work});
        return made;
    };
    scheduler io;
    kumiki_test::with_container(io, spec("sleep 30"), [&](container&) {
        try {
            run_shell(spec("true"));
            FAIL("two containers have one upper directory");
        } catch (const upper_in_use& failure) {
            CHECK(failure.object() == upper);
            CHECK(failure.errno_value() == EBUSY);
        }
        auto other = shell("true", {overlay_mount{.target = "/data",
                                                  .lowers = {busybox().path()},
                                                  .upper = {.upper = upper, .work = work}}});
        CHECK_THROWS_AS(run_shell(std::move(other)), upper_in_use);
    });
    CHECK(run_shell(spec("echo free")).output == "free\n");
}

TEST_CASE(
    "with users of its own and the host's network a container sees the host's /sys read-only") {
    auto spec = with_users(shell("ls /sys/class/net | grep -c .; " + line_of("/sys") +
                                 "; ls /sys/fs/cgroup | grep -c cgroup.procs; "
                                 "ls /sys/firmware | wc -l"));
    spec.network = network_mode::host;
    spec.rootfs = rootfs::assembled();
    spec.mounts.push_back(bind_mount{.source = busybox().path() + "/bin", .target = "/bin"});
    const auto seen = run_shell(std::move(spec)).output;
    const auto lines = split(seen, '\n');
    REQUIRE(lines.size() >= 4);
    CHECK(std::stoi(std::string(lines[0])) ==
          static_cast<int>(std::distance(fs::directory_iterator("/sys/class/net"), {})));
    CHECK(lines[1].starts_with("ro,nosuid,nodev,noexec"));
    CHECK(lines[2] == "1");
    CHECK(lines[3] == "0");
}

TEST_CASE("mounts leave nothing on the host, whether the start succeeds or fails") {
    const temporary_directory place;
    run_shell(shell("true"));
    const auto before = holdings::now();
    const std::vector<mount_description> all{
        bind_mount{.source = place.path(), .target = "/a"},
        tmpfs_mount{.target = "/b"},
        tmpfs_mount{.target = "/etc", .content = tmpfs_content::copy_up},
        file_mount{.target = "/c", .content = "x"},
        overlay_mount{.target = "/d", .lowers = {place.path()}},
        device_mount{.target = "/dev/e", .major = 1, .minor = 3},
        symlink_entry{.target = "/f", .leads_to = "x"},
        directory_entry{.target = "/g"}};
    CHECK(inside("echo there", all) == "there\n");
    KUMIKI_CHECK_NOTHING_LEFT(before);
    auto failing = all;
    failing.push_back(symlink_entry{.target = "/bin", .leads_to = "x"});
    CHECK(refusal(shell("true", failing)).errno_value() == EEXIST);
    KUMIKI_CHECK_NOTHING_LEFT(before);
    CHECK(fs::is_empty(place.path()));
}

TEST_CASE(
    "a mount that has no place, or no sense to the kernel, is refused with what can be done") {
    const temporary_directory place;
    write_text(place.path() + "/file", "");
    const error directory = refusal(bind_mount{.source = "/etc", .target = "/etc/passwd"});
    CHECK(directory.errno_value() == EINVAL);
    CHECK(directory.object() == "mount on /etc/passwd");
    CHECK(contains(directory.remedy(), "on a directory only"));
    const error file = refusal(bind_mount{.source = place.path() + "/file", .target = "/etc"});
    CHECK(file.errno_value() == EINVAL);
    const error below = refusal(tmpfs_mount{.target = "/etc/passwd/x"});
    CHECK(below.errno_value() == ENOTDIR);
    CHECK(below.object() == "tmpfs on /etc/passwd/x");
    auto read_only = shell("true", {tmpfs_mount{.target = "/missing"}});
    read_only.rootfs = rootfs::directory(busybox().path(), access_mode::read_only);
    in_own_mounts([&] {
        // The mount itself is read-only, and not only made so at the end.
        sys::check(
            ::mount(busybox().path().c_str(), busybox().path().c_str(), nullptr, MS_BIND, nullptr),
            "bind");
        sys::check(::mount(nullptr, busybox().path().c_str(), nullptr,
                           MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr),
                   "make read-only");
        const error missing = refusal(std::move(read_only));
        CHECK(missing.errno_value() == EROFS);
        CHECK(contains(missing.remedy(), "read-only"));
    });
    // The third overlay on top of each other: the root's, that of /etc, that of a place in it.
    const tmpfs_mount etc{.target = "/etc", .content = tmpfs_content::copy_up};
    const tmpfs_mount deep{.target = "/etc/x", .content = tmpfs_content::copy_up};
    const error third = refusal(shell("true", {etc, deep}));
    CHECK(third.errno_value() == EINVAL);
    CHECK(third.object() == "copy-up tmpfs on /etc/x");
    CHECK(contains(third.remedy(), "overlay on an overlay"));
}
