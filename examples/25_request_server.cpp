// An HTTP server that runs a command for each request, in a container of its own: fresh, limited, without
// a network, and gone when the request has its answer. The containers come from a pool. As root:
//
//   example_25_request_server [PORT [ROOTFS [COMMAND...]]]
//
//   $ example_25_request_server 8080 &
//   listening on 127.0.0.1:8080
//   $ curl http://127.0.0.1:8080/some/path
//   GET /some/path in c3f0a96d2b41e: process 1 of user 1000
//
// The command finds REQUEST_METHOD and REQUEST_URI in its environment; what it writes is the answer. ROOTFS is
// this host's own by default, below an overlay that keeps it as it is. Control-C ends the server.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <kumiki/kumiki.hpp>

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;

static constexpr std::size_t most_connections = 64;
static constexpr std::size_t longest_request = 8192;
static constexpr auto patience = 10s;  // with a client that says nothing, or takes nothing
static constexpr const char* default_command =
    "echo \"$REQUEST_METHOD $REQUEST_URI in $(hostname): process $$ of user $(id -u)\"";

/// A listening socket on the loopback interface; port 0 becomes the one that the kernel picked.
static unique_fd listen_on(std::uint16_t& port) {
    unique_fd fd(sys::check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in at{.sin_family = AF_INET,
                   .sin_port = htons(port),
                   .sin_addr = {htonl(INADDR_LOOPBACK)},
                   .sin_zero = {}};
    auto* const address = reinterpret_cast<sockaddr*>(&at);
    socklen_t size = sizeof at;
    sys::check(::bind(fd.get(), address, size), "bind", std::to_string(port));
    sys::check(::listen(fd.get(), 1024), "listen");
    sys::check(::getsockname(fd.get(), address, &size), "getsockname");
    port = ntohs(at.sin_port);
    return fd;
}

/// What matters here of a request.
struct request {
    std::string method;
    std::string target;
    bool keep_alive = false;
};

/// Takes one request off the front of `text`; nothing while it is not all there.
static std::optional<request> take_request(std::string& text) {
    const auto end = text.find("\r\n\r\n");
    if (end == std::string::npos) return std::nullopt;
    const std::string head = text.substr(0, end + 2);
    text.erase(0, end + 4);
    std::string_view rest = head;
    std::string_view line = next_field(rest, '\r').value_or("");
    request asked;
    asked.method = next_field(line, ' ').value_or("");
    asked.target = next_field(line, ' ').value_or("");
    asked.keep_alive = line == "HTTP/1.1" && head.find("\r\nConnection: close") == head.npos;
    return asked;
}

static std::string answer(std::string_view status, std::string_view body, bool keep_alive) {
    return fmt::format(
        "HTTP/1.1 {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {}\r\n\r\n{}",
        status, body.size(), keep_alive ? "keep-alive" : "close", body);
}

/// One request in one container, which is gone when this returns.
static task<std::string> run_request(scheduler& io, container_pool& pool, request asked) {
    command_changes changes;
    changes.env = {"PATH=" + std::string(default_path), "REQUEST_METHOD=" + asked.method,
                   "REQUEST_URI=" + asked.target};
    auto box = co_await pool.start(std::move(changes));
    auto seen = co_await with_timeout(
        io, 5s, capture(io, box, {.limit = 1_MiB}));  // a container that takes longer is killed
    if (!seen) co_return answer("504 Gateway Timeout", "It took too long.\n", asked.keep_alive);
    const bool ok = seen->result.exit_code() == 0;
    co_return answer(ok ? "200 OK" : "502 Bad Gateway", seen->out.text, asked.keep_alive);
}

/// Sends all of `text`. Not by write_all(): a client that has gone would end the server by SIGPIPE.
static task<void> send_all(scheduler& io, int connection, std::string_view text) {
    auto rest = std::as_bytes(std::span(text));
    while (!rest.empty()) {
        const std::size_t sent = co_await io.send(connection, rest);
        rest = rest.subspan(sent);
    }
}

static task<void> serve(scheduler& io, container_pool& pool, unique_fd connection,
                        async_semaphore::permit) {
    const int on = 1;
    ::setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    std::string text;
    bool keep_alive = true;
    try {
        while (keep_alive) {
            auto asked = take_request(text);
            std::string reply;
            if (!asked && text.size() < longest_request) {
                std::byte buffer[4096];
                const auto size =
                    co_await with_timeout(io, patience, io.recv(connection.get(), buffer));
                if (!size || *size == 0) co_return;  // an idle client has no slot for ever
                text.append(reinterpret_cast<const char*>(buffer), *size);
                continue;
            }
            keep_alive = asked && asked->keep_alive;
            if (!asked || asked->target.empty())
                reply = answer("400 Bad Request", "", keep_alive = false);
            else if (asked->method != "GET")
                reply = answer("405 Method Not Allowed", "", keep_alive = false);
            else
                reply = co_await run_request(io, pool, *asked);
            const bool taken =
                co_await with_timeout(io, patience, send_all(io, connection.get(), reply));
            if (!taken) co_return;
        }
    } catch (const error& failure) {  // of this request: the others go on
        fmt::print(stderr, "{}\n", failure.what());
    }
}

/// Of descriptors or memory: it passes when others have closed theirs.
static bool is_shortage(int code) {
    return code == EMFILE || code == ENFILE || code == ENOBUFS || code == ENOMEM;
}

static task<void> accept_all(scheduler& io, container_pool& pool, const unique_fd& listener,
                             async_semaphore& slots, scope& connections) {
    for (;;) {
        auto slot = co_await slots.acquire();
        try {
            unique_fd connection = co_await io.accept(listener.get());
            connections.spawn(serve(io, pool, std::move(connection), std::move(slot)));
            continue;
        } catch (const error& failure) {
            if (failure.errno_value() == ECONNABORTED) continue;  // the client has gone already
            if (!is_shortage(failure.errno_value())) throw;
            fmt::print(stderr, "{}\n", failure.what());
        }
        co_await io.sleep_for(100ms);  // the client waits in the backlog
    }
}

/// Limits of what this host has controllers for in cgroup v2.
static resource_limits possible_limits() {
    const controllers here = cgroup_root::open().available();
    resource_limits limits{.raw = {{"cgroup.max.descendants", "0"}}};
    if (has(here, controllers::memory)) limits.memory = 64_MiB;
    if (has(here, controllers::cpu)) limits.cpu = cpus(0.5);
    if (has(here, controllers::pids)) limits.pids = 16;
    return limits;
}

static task<void> run_server(scheduler& io, std::uint16_t port, std::string root,
                             std::vector<std::string> command) {
    container_spec spec{
        .rootfs = rootfs::overlay(std::move(root)),
        .process = {.args = std::move(command),
                    .user = {1000, 1000},
                    .stdio = {stdio::null(), stdio::pipe(), stdio::merge()},
                    .capabilities = {}},
        .limits = possible_limits(),  // and no network: the only interface is lo
    };
    signal_stream signals(io, {SIGINT, SIGTERM});
    container_pool pool(io, std::move(spec), {.ready = 64});
    co_await pool.filled();
    const unique_fd listener = listen_on(port);
    fmt::print("listening on 127.0.0.1:{}\n", port);
    std::fflush(stdout);

    async_semaphore slots(io, most_connections);
    scope connections(io);
    connections.spawn(accept_all(io, pool, listener, slots, connections));
    // Ends by a signal, which stops and awaits all connections, or throws what accept_all() failed with.
    co_await when_any(signals.next(), connections.join());
    const pool_counters counts = pool.counters();
    fmt::print("{} containers were ready, {} were not\n", counts.warm, counts.cold);
}

int main(int argc, char** argv) {
    if (::geteuid() != 0) {
        fmt::print(stderr, "It takes root.\n");
        return 77;
    }
    try {
        const auto port = parse_number<std::uint16_t>(argc > 1 ? argv[1] : "0");
        if (!port) throw invalid_input("port", argv[1], "It is a number up to 65535.");
        std::vector<std::string> command{"sh", "-c", default_command};
        if (argc > 3) command.assign(argv + 3, argv + argc);
        scheduler io;
        io.run(run_server(io, *port, argc > 2 ? argv[2] : "/", std::move(command)));
        return 0;
    } catch (const error& failure) {
        fmt::print(stderr, "{}\n", failure.what());
        return exit_status_of(failure);
    }
}
