// examples/25_request_server.cpp, asked by curl(1) and by clients that behave badly.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <kumiki/core/text.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>

#include "examples/program.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"
#include "support/leaks.hpp"

using namespace kumiki_test;

namespace {

bool has_curl() { return ::system("curl --version >/dev/null 2>&1") == 0; }

/// What curl prints.
std::string curl(const std::string& arguments) {
    const std::string command = "curl -s -m 30 " + arguments + " 2>/dev/null";
    std::string text;
    FILE* const from = ::popen(command.c_str(), "r");
    REQUIRE(from != nullptr);
    char buffer[4096];
    for (std::size_t size; (size = ::fread(buffer, 1, sizeof buffer, from)) > 0;)
        text.append(buffer, size);
    ::pclose(from);
    return text;
}

/// The server, and where it is.
struct running {
    explicit running(const busybox_root& root, std::vector<std::string> command = {})
        : server(arguments(root, std::move(command)), program::on::pipes, {},
                 KUMIKI_EXAMPLE_REQUEST_SERVER) {
        REQUIRE(server.shows("listening on "));
        REQUIRE(server.shows("\n"));
        const std::string& said = server.output();
        const auto at = said.find("127.0.0.1:");
        url = "http://" + said.substr(at, said.find('\n') - at) + "/";
        port = kumiki::parse_number<std::uint16_t>(url.substr(17, url.size() - 18)).value_or(0);
    }
    static std::vector<std::string> arguments(const busybox_root& root,
                                              std::vector<std::string> command) {
        std::vector<std::string> all{"0", root.path()};
        all.insert(all.end(), command.begin(), command.end());
        return all;
    }

    /// A client, connected.
    kumiki::unique_fd connect() const {
        using kumiki::sys::check;
        kumiki::unique_fd fd(check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
        const sockaddr_in at{.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr = {htonl(INADDR_LOOPBACK)},
                             .sin_zero = {}};
        check(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), "connect");
        return fd;
    }

    /// From now on it can have `count` descriptors more.
    void limit_descriptors(rlim_t count) const {
        const std::string open = "/proc/" + std::to_string(server.started_as()) + "/fd/";
        rlimit to{};
        for (rlim_t free = 0; free < count; ++to.rlim_cur)
            if (::access((open + std::to_string(to.rlim_cur)).c_str(), F_OK) != 0) ++free;
        to.rlim_max = to.rlim_cur;
        kumiki::sys::check(::prlimit(server.started_as(), RLIMIT_NOFILE, &to, nullptr), "prlimit");
    }
    /// Its listening socket.
    kumiki::unique_fd listener() const {
        const kumiki::unique_fd process(
            static_cast<int>(::syscall(SYS_pidfd_open, server.started_as(), 0)));
        for (int number = 0; number < 1024; ++number) {
            kumiki::unique_fd fd(
                static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0)));
            int listens = 0;
            socklen_t size = sizeof listens;
            ::getsockopt(fd.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
            if (listens != 0) return fd;
        }
        return {};
    }

    program server;
    std::string url;
    std::uint16_t port = 0;
};

}  // namespace

#define REQUIRE_SERVER()                                                                           \
    if (::geteuid() != 0) KUMIKI_SKIP("containers are made as root");                              \
    if (!has_curl()) KUMIKI_SKIP("curl is not installed")

TEST_CASE("each request is answered by a container of its own") {
    REQUIRE_SERVER();
    const busybox_root root;
    running of(root);
    std::set<std::string> names;
    for (int i = 0; i < 20; ++i) {
        const std::string path = "a/path?of=" + std::to_string(i);
        const std::string text = curl("'" + of.url + path + "'");
        CAPTURE(text);
        REQUIRE(text.starts_with("GET /" + path + " in "));
        CHECK(text.ends_with(": process 1 of user 1000\n"));
        names.insert(text.substr(text.find(" in ")));
    }
    CHECK(names.size() == 20);
    // Two on one connection, and many at a time.
    CHECK(curl(of.url + "one " + of.url + "two -w '%{num_connects}\\n'").find("\n0\n") !=
          std::string::npos);
    std::string many;
    for (int i = 0; i < 100; ++i) many += " " + of.url + std::to_string(i);
    const std::string texts = curl("--parallel --parallel-max 32" + many);
    CHECK(std::count(texts.begin(), texts.end(), '\n') == 100);
    of.server.signal(SIGTERM);
    const auto ended = of.server.wait();
    CHECK(ended.status == 0);
    CHECK(ended.err.empty());
    CHECK(ended.out.find("containers were ready") != std::string::npos);
}

TEST_CASE("a request's container reaches nothing, keeps nothing, and has its limits") {
    REQUIRE_SERVER();
    const busybox_root root;
    running of(root,
               {"sh", "-c",
                "ip -o link | wc -l; ip route | wc -l; ls /tmp; touch /tmp/left 2>&1; "
                "cat /sys/fs/cgroup/cgroup.max.descendants; ls /proc/self/fd | wc -l; "
                "grep -E 'CapEff|CapBnd|Seccomp:|NoNewPrivs' /proc/self/status | tr -s '\\t' ' '"});
    for (int i = 0; i < 2; ++i) {
        const std::string text = curl(of.url);
        CAPTURE(text);
        CHECK(text.starts_with("1\n0\n"));
        CHECK(text.find("left\n0\n") == std::string::npos);
        CHECK(text.find("CapEff: 0000000000000000\n") != std::string::npos);
        CHECK(text.find("CapBnd: 0000000000000000\n") != std::string::npos);
        CHECK(text.find("NoNewPrivs: 1\n") != std::string::npos);
        CHECK(text.find("Seccomp: 2\n") != std::string::npos);
        CHECK(text.find("\n0\n4\n") != std::string::npos);  // no groups below; 3 and ls's own
    }
    of.server.signal(SIGTERM);
    CHECK(of.server.wait().status == 0);
}

TEST_CASE("what is no request, or no answer, is said in HTTP's words") {
    REQUIRE_SERVER();
    const busybox_root root;
    running of(root, {"sh", "-c", "[ $REQUEST_URI = /good ] && exec echo good; echo bad; exit 3"});
    const std::string status = " -w ' %{http_code}' ";
    CHECK(curl(status + of.url + "good") == "good\n 200");
    CHECK(curl(status + of.url + "other") == "bad\n 502");
    CHECK(curl(status + "-d data " + of.url) == " 405");
    CHECK(curl(status + "-H \"A: $(head -c 9000 /dev/zero | tr '\\0' x)\" " + of.url) == " 400");
    of.server.signal(SIGINT);
    CHECK(of.server.wait().status == 0);
}

TEST_CASE("a client that asks twice and goes without its answers does not end the server") {
    REQUIRE_SERVER();
    const busybox_root root;
    running of(root);
    for (int i = 0; i < 4; ++i) {
        const auto client = of.connect();
        const std::string_view two = "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n";
        REQUIRE(::send(client.get(), two.data(), two.size(), MSG_NOSIGNAL) == std::ssize(two));
    }
    CHECK(of.server.complains("EPIPE"));
    CHECK(curl(of.url + "next").starts_with("GET /next in "));
    of.server.signal(SIGTERM);
    CHECK(of.server.wait().status == 0);
}

TEST_CASE(
    "a server that has no descriptors left says so, and answers when others have closed theirs") {
    REQUIRE_SERVER();
#if defined(__has_feature)
#if __has_feature(undefined_behavior_sanitizer)
    KUMIKI_SKIP("UBSan looks at types by pipes of its own, and takes one that fails for a fault");
#endif
#endif
    const busybox_root root;
    running of(root);
    of.limit_descriptors(32);
    std::vector<kumiki::unique_fd> clients;
    for (int i = 0; i < 60; ++i) clients.push_back(of.connect());
    REQUIRE(of.server.complains("EMFILE"));
    clients.clear();
    CHECK(curl(of.url + "after").starts_with("GET /after in "));
    of.server.signal(SIGTERM);
    CHECK(of.server.wait().status == 0);
}

TEST_CASE("a server that can accept no more ends, and says why") {
    REQUIRE_SERVER();
    const busybox_root root;
    running of(root);
    const auto listener = of.listener();
    REQUIRE(listener);
    REQUIRE(::shutdown(listener.get(), SHUT_RDWR) == 0);
    const auto ended = of.server.wait();
    CHECK(ended.status > 0);
    CHECK(ended.status < 1000);
    CHECK(ended.err.find("EINVAL") != std::string::npos);
}

TEST_CASE("idle clients do not keep others out for ever") {
    REQUIRE_SERVER();
    const busybox_root root;
    running of(root);
    std::vector<kumiki::unique_fd> idle;
    for (int i = 0; i < 64; ++i) idle.push_back(of.connect());
    CHECK(curl(of.url + "after").starts_with("GET /after in "));  // some ten seconds later
    of.server.signal(SIGTERM);
    CHECK(of.server.wait().status == 0);
}
