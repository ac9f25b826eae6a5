// The exchange race: while containers start on a directory, one place in it is exchanged, again and
// again, with a symbolic link to a tree outside. Whatever a start finds, that tree stays as it is.
//
// KUMIKI_RACE_STARTS sets how many starts there are for each place. The whole measure is 2,000,
// which takes several minutes; it is run by hand:
//
//   KUMIKI_RACE_STARTS=2000 kumiki_test_container "an exchange*"
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

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

struct contested {
    const char* path;
    wanted_there wanted = wanted_there::directory;
};

constexpr std::array<contested, 16> contested_places{{
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
    {"/run"},
    {"/data"},
    {"/data/one"},
    {"/data/one/two"},
}};

/// Exchanges two names from its construction to its end.
class exchanger {
  public:
    exchanger(std::string one, std::string other)
        : one_(std::move(one)), other_(std::move(other)), thread_([this] {
              constexpr unsigned exchange = 2;  // RENAME_EXCHANGE
              while (!done_)
                  if (::syscall(SYS_renameat2, AT_FDCWD, one_.c_str(), AT_FDCWD, other_.c_str(),
                                exchange) == 0)
                      ++count_;
          }) {}
    ~exchanger() {
        done_ = true;
        thread_.join();
    }
    unsigned long count() const { return count_; }

  private:
    std::string one_;
    std::string other_;
    std::atomic<bool> done_{false};
    std::atomic<unsigned long> count_{0};
    std::thread thread_;
};

}  // namespace

TEST_CASE("an exchange of any place with a link, during starts, changes nothing outside") {
    const char* wanted = std::getenv("KUMIKI_RACE_STARTS");
    const unsigned long starts = wanted != nullptr ? std::strtoul(wanted, nullptr, 10) : 30;
    const sentinel_tree sentinel;
    const temporary_directory volume;
    const unique_fd null = sys::open_at(AT_FDCWD, "/dev/null", O_RDWR);
    scheduler io;
    run_shell(shell_spec(busybox_root(), "exit 0"));
    const auto held = holdings::now();
    unsigned long ran = 0;
    unsigned long refused = 0;
    for (const contested& place : contested_places) {
        CAPTURE(place.path);
        const temporary_directory base;
        const std::string root = base.path() + "/root";
        fs::create_directories(root + "/bin");
        fs::copy_file("/bin/busybox", root + "/bin/busybox");
        std::string at = root;
        if (std::string_view(place.path) != "/") {
            at += place.path;
            fs::create_directories(fs::path(at).parent_path());
            if (place.wanted == wanted_there::directory)
                fs::create_directory(at);
            else
                write_text(at, "an image's\n");
        }
        const std::string link = base.path() + "/link";
        fs::create_symlink(
            place.wanted == wanted_there::directory ? sentinel.directory() : sentinel.file(), link);
        const auto untouched = tree_witness::of(sentinel);
        {
            const exchanger racing(at, link);
            for (unsigned long i = 0; i < starts; ++i) {
                container_spec spec;
                spec.name = group_prefix() + "race";
                spec.rootfs = rootfs::directory(root);
                spec.process.args = {"/bin/busybox", "true"};
                spec.process.stdio = {null.get(), null.get(), null.get()};
                spec.process.terminal = terminal_size{};
                spec.mounts = {tmpfs_mount{.target = "/run"},
                               bind_mount{.source = volume.path(), .target = "/data/one/two"}};
                spec.start_limit = 10s;
                try {
                    const auto result = io.run(start_and_wait(io, std::move(spec)));
                    CHECK(result.exit_code() == 0);
                    ++ran;
                } catch (const error& failure) {
                    INFO(failure.what());
                    CHECK_FALSE(failure.step().empty());
                    CHECK(failure.errno_value() != ETIMEDOUT);
                    ++refused;
                }
            }
            CHECK(racing.count() > starts);
        }
        CHECK(tree_witness::of(sentinel).changes_since(untouched) == "");
    }
    CAPTURE(ran, refused);
    CHECK(ran + refused == starts * contested_places.size());
    CHECK(ran > 0);
    CHECK(refused > 0);
    KUMIKI_CHECK_NOTHING_LEFT(held);
}
