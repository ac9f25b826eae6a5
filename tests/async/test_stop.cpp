#include <thread>

#include <kumiki/async/stop.hpp>

#include "async/both_backends.hpp"

using namespace kumiki;
using namespace kumiki_test;
using namespace std::chrono_literals;

namespace {

enum class wait_on { read, recv, poll, accept, sleep };

task<void> wait_for(scheduler& io, wait_on what, int fd) {
    std::string text(8, '\0');
    switch (what) {
    case wait_on::read:
        co_await io.read(fd, writable(text));
        break;
    case wait_on::recv:
        co_await io.recv(fd, writable(text));
        break;
    case wait_on::poll:
        co_await io.poll(fd, POLLIN);
        break;
    case wait_on::accept:
        co_await io.accept(fd);
        break;
    case wait_on::sleep:
        co_await io.sleep_for(1h);
        break;
    }
}
task<bool> token_is_stopped() {
    const std::stop_token& token = co_await current_stop_token();
    co_return token.stop_requested();
}
task<bool> child_sees_the_token() {
    const bool stopped = co_await token_is_stopped();
    co_return stopped;
}
task<bool> shielded_sees_none() {
    const bool stopped = co_await shield(child_sees_the_token());
    co_return stopped;
}
task<std::string> clean_up(scheduler& io) {
    std::string log;
    try {
        co_await never(io);
    } catch (const cancelled&) {
        log += "cancelled ";
    }
    const auto release = [](scheduler& on) -> task<std::string> {
        co_await on.sleep_for(1ms);
        co_return "released";
    };
    const std::string released = co_await shield(release(io));
    co_return log + released;
}

}  // namespace

TEST_CASE("a stop from the same thread ends an operation", "[stop]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto what =
        GENERATE(wait_on::read, wait_on::recv, wait_on::poll, wait_on::accept, wait_on::sleep);
    const auto sockets = make_socket_pair();
    unique_fd listening(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr abstract{AF_UNIX, {}};
    REQUIRE(::bind(listening.get(), &abstract, sizeof(sa_family_t)) == 0);
    REQUIRE(::listen(listening.get(), 1) == 0);
    const int fd = what == wait_on::accept ? listening.get() : sockets.first.get();
    std::stop_source source;
    const auto stop_soon = [&] { source.request_stop(); };
    io.post(stop_soon);
    CHECK_THROWS_AS(io.run(wait_for(io, what, fd), source.get_token()), cancelled);
    CHECK(io.loop().operations.size() == 0);
}

TEST_CASE("a stop from another thread ends an operation", "[stop]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto what = GENERATE(wait_on::read, wait_on::recv, wait_on::poll, wait_on::sleep);
    const auto sockets = make_socket_pair();
    std::stop_source source;
    std::thread other([&] {
        std::this_thread::sleep_for(5ms);
        source.request_stop();
    });
    CHECK_THROWS_AS(io.run(wait_for(io, what, sockets.first.get()), source.get_token()), cancelled);
    other.join();
}

TEST_CASE("an operation is not started once a stop was asked for", "[stop]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    const auto sockets = make_socket_pair();
    put(sockets.second.get(), "there");
    std::stop_source source;
    source.request_stop();
    CHECK_THROWS_AS(io.run(wait_for(io, wait_on::read, sockets.first.get()), source.get_token()),
                    cancelled);
    char text[8];
    CHECK(::recv(sockets.first.get(), text, sizeof text, MSG_DONTWAIT) == 5);
}

TEST_CASE("children inherit the token", "[stop]") {
    scheduler io;
    std::stop_source source;
    CHECK(!io.run(child_sees_the_token(), source.get_token()));
    source.request_stop();
    CHECK(io.run(child_sees_the_token(), source.get_token()));
    CHECK(!io.run(shielded_sees_none(), source.get_token()));
}

TEST_CASE("shielded work goes on after a stop", "[stop]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    std::stop_source source;
    io.post([&] { source.request_stop(); });
    CHECK(io.run(clean_up(io), source.get_token()) == "cancelled released");
}

TEST_CASE("a completed operation and a stop from another thread race to one outcome", "[stop]") {
    KUMIKI_ON_BOTH_BACKENDS(io);
    int values = 0;
    int stops = 0;
    for (int round = 0; round < 200; ++round) {
        const auto sockets = make_socket_pair();
        std::stop_source source;
        std::thread other([&] {
            (void)!::write(sockets.second.get(), "x", 1);
            source.request_stop();
        });
        try {
            io.run(wait_for(io, wait_on::recv, sockets.first.get()), source.get_token());
            ++values;
        } catch (const cancelled&) {
            ++stops;
        }
        other.join();
    }
    CHECK(values + stops == 200);
    CHECK(io.loop().operations.size() == 0);
}
