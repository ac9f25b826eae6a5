#include <filesystem>
#include <fstream>

#include <kumiki/async/inotify_stream.hpp>
#include <kumiki/async/timeout.hpp>

#include "async/both_backends.hpp"
#include "support/scratch.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

task<file_event> next_of(inotify_stream& watch) {
    auto event = co_await watch.next();
    co_return event;
}
task<bool> has_more(scheduler& io, inotify_stream& watch) {
    const auto event = co_await with_timeout(io, 2ms, watch.next());
    co_return event.has_value();
}
void touch(const std::string& path) { std::ofstream(path) << "x"; }

}  // namespace

TEST_CASE("what happens in a directory is told one by one, in order", "[inotify_stream]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const scratch place;
    inotify_stream watch(io);
    const int id = watch.add(place.path(), IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE);
    touch(place.path() + "/one");
    std::filesystem::create_directory(place.path() + "/two");
    std::filesystem::rename(place.path() + "/one", place.path() + "/three");
    std::filesystem::remove(place.path() + "/three");

    const auto one = io.run(next_of(watch));
    CHECK(one.watch == id);
    CHECK(one.mask == IN_CREATE);
    CHECK(one.name == "one");
    const auto two = io.run(next_of(watch));
    CHECK(two.mask == (IN_CREATE | IN_ISDIR));
    CHECK(two.name == "two");
    const auto from = io.run(next_of(watch));
    const auto to = io.run(next_of(watch));
    CHECK(from.mask == IN_MOVED_FROM);
    CHECK(to.mask == IN_MOVED_TO);
    CHECK(to.name == "three");
    CHECK(from.cookie == to.cookie);
    CHECK(from.cookie != 0);
    CHECK(io.run(next_of(watch)).mask == IN_DELETE);
    CHECK_FALSE(io.run(has_more(io, watch)));  // a wait that was stopped loses nothing
    touch(place.path() + "/four");
    CHECK(io.run(next_of(watch)).name == "four");
}

TEST_CASE("a watch ends with its file, or when it is removed", "[inotify_stream]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const scratch place;
    touch(place.path() + "/file");
    inotify_stream watch(io);
    const int file = watch.add(place.path() + "/file", IN_DELETE_SELF);
    const int whole = watch.add(place.path(), IN_CREATE);
    watch.remove(whole);
    const auto removed = io.run(next_of(watch));
    CHECK(removed.watch == whole);
    CHECK(removed.is_end_of_watch());
    std::filesystem::remove(place.path() + "/file");
    const auto gone = io.run(next_of(watch));
    CHECK(gone.watch == file);
    CHECK(gone.mask == IN_DELETE_SELF);
    CHECK(gone.name.empty());
    CHECK(io.run(next_of(watch)).is_end_of_watch());
    CHECK_THROWS_AS(watch.remove(whole), error);
    try {
        watch.add(place.path() + "/file", IN_MODIFY);
        FAIL("it is gone");
    } catch (const error& missing) {
        CHECK(missing.errno_value() == ENOENT);
        CHECK(std::string(missing.what()).find("/file") != std::string::npos);
    }
}

TEST_CASE("more events than the kernel keeps are told as an overflow", "[inotify_stream]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::size_t most = 0;
    std::ifstream("/proc/sys/fs/inotify/max_queued_events") >> most;
    if (most == 0 || most > 100'000) KUMIKI_SKIP("the kernel keeps too many events to try it");
    const scratch place;
    inotify_stream watch(io);
    watch.add(place.path(), IN_CREATE | IN_DELETE);
    const std::string path = place.path() + "/file";
    for (std::size_t i = 0; i <= most / 2; ++i) {
        const unique_fd made(::open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
        ::unlink(path.c_str());
    }
    std::size_t seen = 0;
    for (bool over = false; !over;) {
        const auto event = io.run(next_of(watch));
        over = event.is_overflow();
        if (over) CHECK(event.watch == -1);
        if (!over) ++seen;
    }
    CHECK(seen == most);
}
