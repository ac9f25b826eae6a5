#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

#include <kumiki/container/named_user.hpp>

#include "container/support.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki;
using kumiki_test::busybox_root;
using kumiki_test::holdings;
using kumiki_test::refusal;
using kumiki_test::run_shell;
using kumiki_test::temporary_directory;
using kumiki_test::write_text;
namespace fs = std::filesystem;

namespace {

constexpr const char* who =
    "grep -E '^(Uid|Gid|Groups|CapEff|CapBnd)' /proc/self/status | tr -s ' \\t\\n' ' '";

container_spec shell_of(const busybox_root& root, const char* user, std::string script = who) {
    auto spec = kumiki_test::shell_spec(root, std::move(script));
    spec.process.named_user = parse_user(user);
    return spec;
}

bool starts_with(const std::string& text, const std::string& start) {
    INFO(text);
    return text.starts_with(start);
}

}  // namespace

TEST_CASE("a user is found by name in the container's own files, with the groups that have it") {
    const busybox_root root;
    write_text(root.path() + "/etc/passwd",
               "root:x:0:0::/:/bin/sh\nroot2:x:1:1::/:\nweb:x:1000:1001::/:/bin/sh\n");
    write_text(root.path() + "/etc/group",
               "root:x:0:\nadm:x:4:web\nwebs:x:7:\nlog:x:9:root,web\nown:x:1001:web\n");
    const clone_mode mode = GENERATE(clone_mode::shared_memory, clone_mode::own_memory);
    const auto run = [&](const char* user) {
        auto spec = shell_of(root, user);
        spec.clone = mode;
        return run_shell(std::move(spec)).output;
    };
    CHECK(starts_with(run("web"),
                      "Uid: 1000 1000 1000 1000 Gid: 1001 1001 1001 1001 "
                      "Groups: 4 9 CapEff: 0000000000000000 CapBnd: 00000000"));
    CHECK(starts_with(run("web:webs"),
                      "Uid: 1000 1000 1000 1000 Gid: 7 7 7 7 Groups: CapEff: 0000000000000000"));
    CHECK(
        starts_with(run("1000"), "Uid: 1000 1000 1000 1000 Gid: 1001 1001 1001 1001 Groups: 4 9"));
    CHECK(starts_with(run("77"), "Uid: 77 77 77 77 Gid: 77 77 77 77 Groups: CapEff: 0000"));
    const std::string as_root = run("root");
    CHECK(starts_with(as_root, "Uid: 0 0 0 0 Gid: 0 0 0 0 Groups: 9 CapEff: 00000000"));
    CHECK(as_root.find("CapEff: 0000000000000000") == std::string::npos);
}

TEST_CASE("the files that count are those that the container sees") {
    const busybox_root root;
    const temporary_directory layer;
    fs::create_directory(layer.path() + "/etc");
    write_text(layer.path() + "/etc/passwd", "web:x:55:56::/:/bin/sh\n");
    auto layered = shell_of(root, "web");
    layered.rootfs = rootfs::overlay(std::vector<std::string>{layer.path(), root.path()});
    CHECK(starts_with(run_shell(layered).output, "Uid: 55 55 55 55 Gid: 56"));
    layered.mounts = {bind_mount{.source = root.path() + "/etc/passwd", .target = "/etc/passwd"}};
    CHECK(starts_with(run_shell(layered).output, "Uid: 1000 1000 1000 1000 Gid: 1000"));
    // Through a link of the image, inside the image.
    fs::rename(root.path() + "/etc/passwd", root.path() + "/etc/users");
    fs::create_symlink("/etc/users", root.path() + "/etc/passwd");
    CHECK(starts_with(run_shell(shell_of(root, "web")).output, "Uid: 1000"));
}

TEST_CASE("a user by name in a user namespace, with a terminal of its own") {
    const busybox_root root;
    auto spec = shell_of(root, "web", "id -u; stat -c %u /proc/self/fd/0 /dev/console; sleep 30");
    spec.user_namespace = kumiki_test::mapped_ids();
    spec.process.terminal = terminal_size{};
    scheduler io;
    kumiki_test::with_container(io, std::move(spec), [](container& box) {
        std::string seen;
        char text[256];
        while (std::count(seen.begin(), seen.end(), '\n') < 3) {
            pollfd ready{box.terminal(), POLLIN, 0};
            REQUIRE(::poll(&ready, 1, 10000) == 1);
            const auto size = ::read(box.terminal(), text, sizeof text);
            REQUIRE(size > 0);
            seen.append(text, static_cast<std::size_t>(size));
        }
        struct stat info{};
        REQUIRE(::stat(("/proc/" + std::to_string(box.pid()) + "/root/dev/console").c_str(),
                       &info) == 0);
        CHECK(info.st_uid == 101000);
        CHECK(starts_with(seen, "1000\r\n"));
    });
}

TEST_CASE("an unknown user or group is refused by its name, and leaves nothing") {
    const busybox_root root;
    run_shell(shell_of(root, "web"));
    const auto before = holdings::now();
    const auto unknown = refusal(shell_of(root, "nobody-here"));
    CHECK(std::string(unknown.what()).find("nobody-here") != std::string::npos);
    CHECK(std::string(unknown.what()).find("/etc/passwd") != std::string::npos);
    CHECK(std::string(refusal(shell_of(root, "web:no-group")).what()).find("no-group") !=
          std::string::npos);
    fs::remove(root.path() + "/etc/passwd");
    fs::remove(root.path() + "/etc/group");
    CHECK(std::string(refusal(shell_of(root, "web")).what()).find("'web'") != std::string::npos);
    CHECK(starts_with(run_shell(shell_of(root, "12:34")).output, "Uid: 12 12 12 12 Gid: 34"));
    KUMIKI_CHECK_NOTHING_LEFT(before);
}

TEST_CASE("a passwd file that is none cannot harm: links, a FIFO, a directory, a huge one") {
    const busybox_root root;
    const temporary_directory outside;
    write_text(outside.path() + "/passwd", "web:x:0:0::/:/bin/sh\n");
    const std::string passwd = root.path() + "/etc/passwd";
    const auto before = holdings::now();
    const auto replaced_by = [&](auto make) {
        std::error_code ignored;
        fs::remove_all(passwd, ignored);
        make();
        const auto failure = refusal(shell_of(root, "web"));
        INFO(failure.what());
        CHECK(*failure.what() != '\0');
        return failure;
    };
    const std::string target = outside.path() + "/passwd";
    for (const std::string& link :
         {target, "../../../../../../.." + target, std::string("passwd"),
          std::string("/proc/1/root") + target, std::string("/nowhere")}) {
        CAPTURE(link);
        replaced_by([&] { fs::create_symlink(link, passwd); });
    }
    replaced_by([&] { REQUIRE(::mkfifo(passwd.c_str(), 0666) == 0); });
    replaced_by([&] { fs::create_directory(passwd); });
    replaced_by([&] { REQUIRE(::mknod(passwd.c_str(), S_IFCHR | 0666, makedev(1, 5)) == 0); });
    replaced_by([&] {
        write_text(passwd, "x");
        fs::resize_file(passwd, std::uintmax_t{1} << 40);
    });
    KUMIKI_CHECK_NOTHING_LEFT(before);
}
