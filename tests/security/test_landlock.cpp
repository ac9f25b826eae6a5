#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstddef>
#include <functional>
#include <string>

#include <kumiki/security/landlock.hpp>

#include "security/child.hpp"
#include "support/busybox.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using right = landlock_access;
using network = landlock_network;
using scope = landlock_scope;
using kumiki_test::exit_code_of;
using kumiki_test::temporary_directory;
using kumiki_test::write_text;

namespace {

/// The message with which rules are refused for a kernel with `abi`, or nothing.
std::string refusal(const landlock_rules& rules, unsigned abi = 6) {
    try {
        (void)prepare_landlock(rules, abi);
    } catch (const error& failure) {
        return failure.what();
    }
    return {};
}

bool contains(const std::string& text, const std::string& part) {
    INFO(text);
    return text.find(part) != std::string::npos;
}

/// The answer of a call in a child that is restricted by `rules`: its errno, 0 when it works.
template <class Call>
int answer(const landlock_rules& rules, Call&& call) {
    return exit_code_of([&] {
        try {
            ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            restrict_by_landlock(rules);
        } catch (const error& failure) {
            ::_exit(failure.errno_value() != 0 ? 200 : 201);
        }
        errno = 0;
        ::_exit(call() >= 0 ? 0 : errno);
    });
}

int open_for(const std::string& path, int flags) { return ::open(path.c_str(), flags, 0600); }

/// A TCP socket bound to `port`, or connected to it, in a network of its own.
template <class Call>
int with_address(std::uint16_t port, Call&& call) {
    if (::unshare(CLONE_NEWNET) != 0) return 0;
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    return call(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

/// A directory with open/file and closed/file.
class two_places : public temporary_directory {
  public:
    two_places() {
        for (const char* name : {"/open", "/closed"}) {
            ::mkdir((path() + name).c_str(), 0755);
            write_text(path() + name + "/file", "text");
        }
    }
    std::string open() const { return path() + "/open"; }
    std::string closed() const { return path() + "/closed"; }
};

}  // namespace

TEST_CASE("Landlock's numbers are the kernel's") {
    CHECK(to_underlying(right::execute) == LANDLOCK_ACCESS_FS_EXECUTE);
    CHECK(to_underlying(right::write_file) == LANDLOCK_ACCESS_FS_WRITE_FILE);
    CHECK(to_underlying(right::read_file) == LANDLOCK_ACCESS_FS_READ_FILE);
    CHECK(to_underlying(right::read_dir) == LANDLOCK_ACCESS_FS_READ_DIR);
    CHECK(to_underlying(right::remove_dir) == LANDLOCK_ACCESS_FS_REMOVE_DIR);
    CHECK(to_underlying(right::remove_file) == LANDLOCK_ACCESS_FS_REMOVE_FILE);
    CHECK(to_underlying(right::make_char) == LANDLOCK_ACCESS_FS_MAKE_CHAR);
    CHECK(to_underlying(right::make_dir) == LANDLOCK_ACCESS_FS_MAKE_DIR);
    CHECK(to_underlying(right::make_reg) == LANDLOCK_ACCESS_FS_MAKE_REG);
    CHECK(to_underlying(right::make_sock) == LANDLOCK_ACCESS_FS_MAKE_SOCK);
    CHECK(to_underlying(right::make_fifo) == LANDLOCK_ACCESS_FS_MAKE_FIFO);
    CHECK(to_underlying(right::make_block) == LANDLOCK_ACCESS_FS_MAKE_BLOCK);
    CHECK(to_underlying(right::make_sym) == LANDLOCK_ACCESS_FS_MAKE_SYM);
    CHECK(to_underlying(right::refer) == LANDLOCK_ACCESS_FS_REFER);
#ifdef LANDLOCK_ACCESS_FS_TRUNCATE
    CHECK(to_underlying(right::truncate) == LANDLOCK_ACCESS_FS_TRUNCATE);
#endif
#ifdef LANDLOCK_ACCESS_FS_IOCTL_DEV
    CHECK(to_underlying(right::ioctl_dev) == LANDLOCK_ACCESS_FS_IOCTL_DEV);
#endif
#ifdef LANDLOCK_ACCESS_NET_BIND_TCP
    CHECK(to_underlying(network::bind_tcp) == LANDLOCK_ACCESS_NET_BIND_TCP);
    CHECK(to_underlying(network::connect_tcp) == LANDLOCK_ACCESS_NET_CONNECT_TCP);
#endif
#ifdef LANDLOCK_SCOPE_SIGNAL
    CHECK(to_underlying(scope::abstract_unix_socket) == LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET);
    CHECK(to_underlying(scope::signal) == LANDLOCK_SCOPE_SIGNAL);
#endif
}

TEST_CASE("a kernel with everything gets the rules as they are") {
    const auto made = prepare_landlock({.paths = {{"/usr", right::read | right::execute}},
                                        .handled_network = network::bind_tcp,
                                        .ports = {{80, network::bind_tcp}},
                                        .scopes = scope::signal},
                                       6);
    CHECK(made.ruleset.handled_access_fs == 0xffff);
    CHECK(made.ruleset.handled_access_net == 1);
    CHECK(made.ruleset.scoped == 2);
    REQUIRE(made.paths.size() == 1);
    CHECK(made.paths[0].allow == (right::read_file | right::read_dir | right::execute));
    REQUIRE(made.ports.size() == 1);
    CHECK(made.ports[0].port == 80);
    CHECK(made.ports[0].allowed_access == 1);
    CHECK_FALSE(made.empty());
    CHECK(prepare_landlock({.handled = right::none}, 6).empty());
}

TEST_CASE("what an older kernel lacks is an error that names the ABI that it needs") {
    utsname running{};
    ::uname(&running);
    struct lacking {
        landlock_rules rules;
        unsigned abi;
        const char* names;
        const char* needs;
    };
    for (const auto& each : std::initializer_list<lacking>{
             {{}, 0, "ioctl_dev", "ABI 5 (Linux 6.10)"},
             {{}, 4, "ioctl_dev", "ABI 5 (Linux 6.10)"},
             {{.handled = right::truncate}, 2, "truncate", "ABI 3 (Linux 6.2)"},
             {{.handled = right::refer}, 1, "refer", "ABI 2 (Linux 5.19)"},
             {{.handled = right::execute}, 0, "files", "ABI 1 (Linux 5.13)"},
             {{.handled = right::none, .handled_network = network::bind_tcp},
              3,
              "bind_tcp",
              "ABI 4 (Linux 6.7)"},
             {{.handled = right::none, .handled_network = network::connect_tcp},
              3,
              "connect_tcp",
              "ABI 4 (Linux 6.7)"},
             {{.handled = right::none, .scopes = scope::abstract_unix_socket},
              5,
              "abstract UNIX sockets",
              "ABI 6 (Linux 6.12)"},
             {{.handled = right::none, .scopes = scope::signal}, 5, "signals", "ABI 6"}}) {
        CAPTURE(each.abi, each.names);
        const std::string why = refusal(each.rules, each.abi);
        CHECK(contains(why, each.names));
        CHECK(contains(why, each.needs));
        CHECK(contains(why, running.release));
        CHECK(contains(why, each.abi == 0 ? "no Landlock" : "ABI " + std::to_string(each.abi)));
        CHECK(refusal(each.rules, 6).empty());
        CHECK_THROWS_AS(prepare_landlock(each.rules, each.abi), unsupported);
    }
}

TEST_CASE("best effort leaves out what an older kernel lacks, and keeps the rest") {
    const landlock_rules rules{
        .paths = {{"/a", right::read | right::truncate | right::refer}, {"/b", right::ioctl_dev}},
        .handled_network = network::bind_tcp | network::connect_tcp,
        .ports = {{80, network::bind_tcp}},
        .scopes = scope::signal | scope::abstract_unix_socket,
        .support = landlock_support::best_effort};
    struct expected {
        unsigned abi;
        std::uint64_t files;
        std::uint64_t network;
        std::uint64_t scopes;
        std::size_t paths;
    };
    for (const auto& each :
         {expected{7, 0xffff, 3, 3, 2}, expected{6, 0xffff, 3, 3, 2}, expected{5, 0xffff, 3, 0, 2},
          expected{4, 0x7fff, 3, 0, 1}, expected{3, 0x7fff, 0, 0, 1}, expected{2, 0x3fff, 0, 0, 1},
          expected{1, 0x1fff, 0, 0, 1}, expected{0, 0, 0, 0, 0}}) {
        CAPTURE(each.abi);
        const auto made = prepare_landlock(rules, each.abi);
        CHECK(made.ruleset.handled_access_fs == each.files);
        CHECK(made.ruleset.handled_access_net == each.network);
        CHECK(made.ruleset.scoped == each.scopes);
        CHECK(made.paths.size() == each.paths);
        CHECK(made.ports.size() == (each.network != 0 ? 1 : 0));
        CHECK(made.empty() == (each.abi == 0));
        for (const auto& path : made.paths)
            CHECK((to_underlying(path.allow) & ~each.files) == 0);  // the kernel refuses others
    }
}

TEST_CASE("rules that no kernel takes are refused, also with best effort") {
    const auto support = GENERATE(landlock_support::required, landlock_support::best_effort);
    const auto refused = [&](landlock_rules rules, const char* why) {
        rules.support = support;
        CHECK(contains(refusal(rules), why));
        CHECK_THROWS_AS(prepare_landlock(rules, 6), invalid_input);
    };
    refused({.handled = static_cast<right>(1 << 16)}, "65536");
    refused({.handled_network = static_cast<network>(4)}, "'4'");
    refused({.scopes = static_cast<scope>(8)}, "'8'");
    refused({.paths = {{"relative"}}}, "absolute");
    refused({.paths = {{""}}}, "absolute");
    refused({.paths = {{std::string("/a\0b", 4)}}}, "NUL");
    refused({.paths = {{"/" + std::string(5000, 'x')}}}, "limit");
    refused({.paths = {{"/a", right::none}}}, "allows nothing");
    refused({.handled = right::read, .paths = {{"/a", right::execute}}}, "do not handle");
    refused({.paths = {{"/a", static_cast<right>(1 << 20)}}}, "do not handle");
    refused({.ports = {{80, network::bind_tcp}}}, "do not handle");
    refused({.handled_network = network::bind_tcp, .ports = {{80, network::none}}}, "'80'");
}

TEST_CASE("the ABI is what the kernel says, and 0 where it may not be asked") {
    const long said = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, 1);
    CHECK(landlock_abi() == (said > 0 ? static_cast<unsigned>(said) : 0U));
}

TEST_CASE("a restricted thread reads what is allowed, and nothing else") {
    if (landlock_abi() < 1) KUMIKI_SKIP("this kernel has no Landlock");
    const two_places place;
    const landlock_rules rules{.paths = {{place.open()}}, .support = landlock_support::best_effort};
    const auto opened = [&](const std::string& path, int flags) {
        return answer(rules, [&] { return open_for(path, flags); });
    };
    CHECK(opened(place.open() + "/file", O_RDONLY) == 0);
    CHECK(opened(place.open(), O_RDONLY | O_DIRECTORY) == 0);
    CHECK(opened(place.closed() + "/file", O_RDONLY) == EACCES);
    CHECK(opened(place.closed(), O_RDONLY | O_DIRECTORY) == EACCES);
    CHECK(opened("/etc/passwd", O_RDONLY) == EACCES);
    CHECK(opened(place.open() + "/../closed/file", O_RDONLY) == EACCES);
    CHECK(opened(place.open() + "/file", O_WRONLY) == EACCES);
    CHECK(opened(place.open() + "/new", O_WRONLY | O_CREAT) == EACCES);
    CHECK(answer({.handled = right::none, .scopes = scope::none},
                 [&] { return open_for(place.closed() + "/file", O_RDONLY); }) == 0);
}

TEST_CASE("each right is one of its own") {
    if (landlock_abi() < 5) KUMIKI_SKIP("this kernel's Landlock has not all of the rights");
    const two_places place;
    const std::string at = place.open();
    struct attempt {
        right allowed;
        std::function<int()> call;
    };
    const attempt attempts[] = {
        {right::read_file, [&] { return open_for(at + "/file", O_RDONLY); }},
        {right::write_file, [&] { return open_for(at + "/file", O_WRONLY); }},
        {right::read_dir, [&] { return open_for(at, O_RDONLY | O_DIRECTORY); }},
        {right::truncate, [&] { return ::truncate((at + "/file").c_str(), 1); }},
        {right::make_reg, [&] { return ::mknod((at + "/new").c_str(), S_IFREG | 0600, 0); }},
        {right::make_dir, [&] { return ::mkdir((at + "/dir").c_str(), 0700); }},
        {right::make_sym, [&] { return ::symlink("x", (at + "/link").c_str()); }},
        {right::make_fifo, [&] { return ::mkfifo((at + "/fifo").c_str(), 0600); }},
        {right::make_char, [&] { return ::mknod((at + "/char").c_str(), S_IFCHR | 0600, 0x103); }},
        {right::make_block,
         [&] { return ::mknod((at + "/block").c_str(), S_IFBLK | 0600, 0x103); }},
        {right::remove_dir, [&] { return ::rmdir((at + "/dir").c_str()); }},
        {right::remove_file, [&] { return ::unlink((at + "/link").c_str()); }},
    };
    for (const attempt& each : attempts) {
        CAPTURE(to_underlying(each.allowed));
        // With all rights but this one it is refused; with this one alone it works.
        CHECK(answer({.paths = {{at, right::all & ~each.allowed}}}, each.call) == EACCES);
        CHECK(answer({.paths = {{at, each.allowed}}}, each.call) == 0);
    }
    const auto moved = [&] {
        return ::rename((at + "/new").c_str(), (place.closed() + "/new").c_str());
    };
    const landlock_path both[] = {{at, right::all}, {place.closed(), right::all}};
    CHECK(answer({.paths = {{at, right::all & ~right::refer}, both[1]}}, moved) == EXDEV);
    CHECK(answer({.paths = {both[0], both[1]}}, moved) == 0);
    const auto device = [] {
        const int fd = ::open("/dev/ptmx", O_RDWR | O_NOCTTY);
        int number = 0;
        return ::ioctl(fd, 0x80045430 /* TIOCGPTN */, &number);
    };
    CHECK(answer({.paths = {{"/dev", right::all & ~right::ioctl_dev}}}, device) == EACCES);
    CHECK(answer({.paths = {{"/dev", right::all}}}, device) == 0);
}

TEST_CASE("a file is given of a rule's rights those that files have") {
    if (landlock_abi() < 1) KUMIKI_SKIP("this kernel has no Landlock");
    const two_places place;
    const std::string file = place.closed() + "/file";
    landlock_rules rules{.paths = {{file, right::read | right::make_reg}},
                         .support = landlock_support::best_effort};
    CHECK(answer(rules, [&] { return open_for(file, O_RDONLY); }) == 0);
    CHECK(answer(rules, [&] { return open_for(place.open() + "/file", O_RDONLY); }) == EACCES);
    rules.paths = {{file, right::read_dir}};  // none is left
    CHECK(answer(rules, [] { return 0; }) == 200);
    rules.paths = {{place.path() + "/missing"}};
    CHECK(answer(rules, [] { return 0; }) == 200);
}

TEST_CASE("TCP ports are bound and connected to as the rules say") {
    if (landlock_abi() < 4) KUMIKI_SKIP("this kernel's Landlock knows no ports");
    if (::geteuid() != 0) KUMIKI_SKIP("needs root for network namespaces");
    const landlock_rules rules{
        .handled = right::none,
        .handled_network = network::bind_tcp | network::connect_tcp,
        .ports = {{20999, network::bind_tcp}, {20998, network::connect_tcp}}};
    const auto binding = [&](std::uint16_t port) {
        return answer(rules, [&] { return with_address(port, ::bind); });
    };
    const auto connecting = [&](std::uint16_t port) {
        return answer(rules, [&] { return with_address(port, ::connect); });
    };
    CHECK(binding(20999) == 0);
    CHECK(binding(20998) == EACCES);
    CHECK(binding(0) == EACCES);
    const int nobody = connecting(20998);  // allowed, but there is nobody
    CHECK((nobody == ECONNREFUSED || nobody == ENETUNREACH));
    CHECK(connecting(20999) == EACCES);
}

TEST_CASE("signals and abstract sockets end at the rules' end") {
    if (landlock_abi() < 6) KUMIKI_SKIP("this kernel's Landlock has no scopes");
    const landlock_rules none{.handled = right::none};
    landlock_rules rules{.handled = right::none, .scopes = scope::signal};
    const pid_t parent = ::getpid();
    CHECK(answer(none, [&] { return ::kill(parent, 0); }) == 0);
    CHECK(answer(rules, [&] { return ::kill(parent, 0); }) == EPERM);
    CHECK(answer(rules, [&] { return ::kill(::getpid(), 0); }) == 0);

    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string name = "kumiki-landlock-" + std::to_string(parent);
    name.copy(&address.sun_path[1], name.size());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    const unique_fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0);
    REQUIRE(::listen(listener.get(), 5) == 0);
    const auto connecting = [&] {
        const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
        return ::connect(fd, reinterpret_cast<const sockaddr*>(&address), size);
    };
    CHECK(answer(rules, connecting) == 0);
    rules.scopes = scope::abstract_unix_socket;
    CHECK(answer(rules, connecting) == EPERM);
}

TEST_CASE(
    "without no_new_privs and CAP_SYS_ADMIN the kernel refuses, and the error says what it needs") {
    if (landlock_abi() < 1) KUMIKI_SKIP("this kernel has no Landlock");
    if (::geteuid() != 0) KUMIKI_SKIP("needs root to become another user");
    const int code = exit_code_of([] {
        if (::setresuid(1000, 1000, 1000) != 0) ::_exit(1);
        try {
            restrict_by_landlock({.handled = right::execute});
        } catch (const error& failure) {
            const bool named = failure.remedy().find("no_new_privs") != std::string::npos;
            ::_exit(failure.errno_value() == EPERM && named ? 42 : 2);
        }
    });
    CHECK(code == 42);
}
