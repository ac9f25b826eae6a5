#include <sys/wait.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include <kumiki/network/shared_place.hpp>

#include "support/catch.hpp"

using namespace kumiki;

namespace {

struct directories {
    std::string path;

    directories() {
        char name[] = "/tmp/kumiki-test-XXXXXX";
        REQUIRE(::mkdtemp(name) != nullptr);
        path = name;
    }
    ~directories() {
        ::rmdir((path + "/a").c_str());
        ::rmdir(path.c_str());
    }
};

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

}  // namespace

TEST_CASE("The first user and the last one know that they are alone, and nothing is left") {
    const directories place;
    const std::string path = place.path + "/a/b";
    std::vector<bool> alone;
    const auto note = [&](int, bool is_alone) { alone.push_back(is_alone); };
    {
        shared_place first(path, note);
        shared_place second(path, note);
        first.leave(note);
        first.leave(note);  // once only
        CHECK(exists(path + "/users"));
        second.leave(note);
    }
    CHECK(alone == std::vector<bool>{true, false, false, true});
    CHECK(!exists(path));
}

TEST_CASE("Who fails while coming was never there") {
    const directories place;
    const std::string path = place.path + "/a";
    const auto refuse = [](int, bool) { throw error(EPERM, {.operation = "prepare"}); };
    CHECK_THROWS_AS(shared_place(path, refuse), error);
    CHECK(!exists(path));
    bool alone = false;
    shared_place user(path, [&](int, bool is_alone) { alone = is_alone; });
    CHECK(alone);
    CHECK_THROWS_AS(shared_place(path, refuse), error);
    user.leave([&](int, bool is_alone) { CHECK(is_alone); });
}

TEST_CASE("A directory that cannot be made is named") {
    try {
        const shared_place user("/proc/kumiki/a", [](int, bool) {});
        FAIL("it was made");
    } catch (const error& failure) {
        CHECK(failure.object() == "/proc/kumiki");
    }
}

TEST_CASE("A killed user is gone at once, and the next one is alone with its files") {
    const directories place;
    const std::string path = place.path + "/a";
    int ready[2];
    REQUIRE(::pipe2(ready, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        try {
            const shared_place user(path, [](int directory, bool) {
                sys::open_at(directory, "mine", O_RDWR | O_CREAT, 0600);
            });
            (void)!::write(ready[1], "x", 1);
            for (;;) ::pause();
        } catch (...) {
            ::_exit(1);
        }
    }
    REQUIRE(child > 0);
    ::close(ready[1]);
    char byte = 0;
    REQUIRE(::read(ready[0], &byte, 1) == 1);
    {
        bool alone = true;
        const shared_place user(path, [&](int, bool is_alone) { alone = is_alone; });
        CHECK(!alone);
    }
    ::kill(child, SIGKILL);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    bool alone = false;
    shared_place user(path, [&](int, bool is_alone) { alone = is_alone; });
    CHECK(alone);
    CHECK(exists(path + "/mine"));
    user.leave([](int directory, bool) { ::unlinkat(directory, "mine", 0); });
    CHECK(!exists(path));
    ::close(ready[0]);
}

TEST_CASE("However users come and go, what the first makes is there until the last goes") {
    const directories place;
    const std::string path = place.path + "/a";
    std::atomic<int> made{0};
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t)
        threads.emplace_back([&] {
            for (int i = 0; i < 100; ++i) {
                shared_place user(path, [&](int, bool alone) {
                    if (alone ? made.exchange(1) != 0 : made.load() != 1) ++wrong;
                });
                if (made.load() != 1) ++wrong;
                user.leave([&](int, bool alone) {
                    if (alone && made.exchange(0) != 1) ++wrong;
                });
            }
        });
    for (auto& thread : threads) thread.join();
    CHECK(wrong == 0);
    CHECK(made == 0);
    CHECK(!exists(path));
}
