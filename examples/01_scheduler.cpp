// The scheduler alone: two tasks talk over a socket, with a time limit, in one thread.
//
// Expected output (and on stderr the backend: io_uring, or epoll where that is denied):
//   server: ping 1
//   server: ping 2
//   client: no third answer within 50 ms
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <string>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/timeout.hpp>
#include <kumiki/async/when.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

using namespace kumiki;
using namespace std::chrono_literals;

task<void> serve(scheduler& io, int fd) {
    for (int answers = 0; answers < 2; ++answers) {
        std::array<std::byte, 64> buffer;
        const auto count = co_await io.recv(fd, buffer);
        std::printf("server: %.*s\n", static_cast<int>(count),
                    reinterpret_cast<const char*>(buffer.data()));
        co_await io.send(fd, std::span(buffer).first(count));
    }
}

task<void> ask(scheduler& io, int fd) {
    for (int i = 1; i <= 3; ++i) {
        const std::string text = "ping " + std::to_string(i);
        co_await io.send(fd, std::as_bytes(std::span(text)));
        std::array<std::byte, 64> buffer;
        const auto answer = co_await with_timeout(io, 50ms, io.recv(fd, buffer));
        if (!answer) std::puts("client: no third answer within 50 ms");
    }
}

task<int> talk(scheduler& io) {
    std::fprintf(stderr, "backend: %s\n", to_string(io.backend()));
    std::array<int, 2> fds{};
    sys::check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds.data()), "socketpair");
    const unique_fd server(fds[0]);
    const unique_fd client(fds[1]);
    co_await when_all(serve(io, server.get()), ask(io, client.get()));
    co_return 0;
}

int main() { return kumiki::run(talk); }
