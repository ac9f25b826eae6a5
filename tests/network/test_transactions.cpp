// strace(1) as the witness of how often the kernel is asked: an endpoint takes four sendto(2), one of them
// the transaction of all its rules, however many ports it publishes.
//
// The test runs its own program a second time under strace, with the hidden test at the end of this file.
// What it is about is between two calls to sendto(2) that can only fail.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <kumiki/network/endpoint.hpp>
#include <kumiki/network/endpoint_change.hpp>

#include "support/catch.hpp"
#include "support/netns.hpp"
#include "support/run_program.hpp"
#include "support/scratch.hpp"
#include "support/witness.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using kumiki_test::private_netns;
using kumiki_test::run_program;
namespace fs = std::filesystem;

namespace {

constexpr const char* ports_variable = "KUMIKI_TEST_TRACED_PORTS";

void mark(const char* text) { (void)::sendto(-1, text, 5, 0, nullptr, 0); }

struct traced_call {
    std::string line;
    long result = 0;
};

/// The calls between the two marks, of all threads.
std::vector<traced_call> calls_between_marks(const std::string& file) {
    std::vector<traced_call> calls;
    std::ifstream in(file);
    bool inside = false;
    std::map<std::string, std::string> unfinished;  // by the thread's number, the line's first word
    for (std::string line; std::getline(in, line);) {
        const std::string thread = line.substr(0, line.find(' '));
        if (const auto cut = line.find(" <unfinished ...>"); cut != std::string::npos) {
            unfinished[thread] = line.substr(0, cut);
            continue;
        }
        if (const auto rest = line.find(" resumed>"); rest != std::string::npos)
            line = unfinished[thread] + line.substr(rest + 9);
        if (line.find("\"endit\"") != std::string::npos) return calls;
        if (inside) {
            const auto equals = line.rfind(" = ");
            if (equals != std::string::npos)
                calls.push_back({line, std::strtol(line.c_str() + equals + 3, nullptr, 10)});
        }
        inside = inside || line.find("\"begin\"") != std::string::npos;
    }
    FAIL("the marks are not in the trace");
    return calls;
}

}  // namespace

TEST_CASE("206 ports are published by one transaction, as one port is") {
    NEEDS_NETNS;
    const kumiki_test::scratch place;
    if (run_program({"strace", "-o", "/dev/null", "true"}, place.path() + "/probe") != 0)
        KUMIKI_SKIP("strace is not installed, or may not trace here");
    const int ports = GENERATE(1, 206);
    CAPTURE(ports);
    const std::string trace = place.path() + "/trace";
    const int status =
        run_program({"env", ports_variable + ("=" + std::to_string(ports)),
                     "ASAN_OPTIONS=detect_leaks=0",  // its tracer would meet strace
                     "strace", "-f", "-s", "16", "-e", "trace=sendto,sendmsg,sendmmsg,write", "-o",
                     trace, fs::read_symlink("/proc/self/exe").string(), "[traced-ports]"},
                    place.path() + "/output");
    std::ifstream output(place.path() + "/output");
    INFO(std::string(std::istreambuf_iterator<char>(output), {}));
    REQUIRE(status == 0);
    const auto calls = calls_between_marks(trace);
    // A batch of nftables begins with a message that has no more than its heads.
    std::vector<traced_call> transactions;
    std::copy_if(
        calls.begin(), calls.end(), std::back_inserter(transactions), [](const traced_call& call) {
            return call.line.find("[[{nlmsg_len=20, nlmsg_type=0x10 ") != std::string::npos;
        });
    REQUIRE(transactions.size() == 1);
    CHECK(transactions.front().result > ports * 2 * 40);  // the elements were in it
    CHECK(std::count_if(calls.begin(), calls.end(), [](const traced_call& call) {
              return call.line.find("nlmsg_len=") != std::string::npos;
          }) == 4);
}

// The kernel counts the transactions itself.
TEST_CASE("Each step of a container's life makes one generation of the ruleset") {
    NEEDS_NETNS;
    const kumiki_test::scratch place;
    const private_netns host;
    const private_netns inside;
    const auto net = host.run([&] {
        return bridge_network::open({.name = "web",
                                     .subnet = "10.88.0.0/24"_cidr,
                                     .subnet6 = "fd00:88::/64"_cidr,
                                     .state_directory = place.path()});
    });
    auto socket = netlink_socket::open_in(host.fd(), NETLINK_NETFILTER);
    auto generations = [&, before = nft::generation(socket)]() mutable {
        const auto now = nft::generation(socket);
        return now - std::exchange(before, now);
    };
    const policy rules = deny_all()
                             .allow("192.0.2.0/24"_cidr, tcp(443))
                             .allow(label{"db"}, tcp(5432))
                             .allow("2001:db8::/32"_cidr, {}, {.connections = rate{.count = 10}});
    const auto connect = [&] {
        auto held = host.run([&] {
            return reserve(net.attach({.publish = {tcp(20000, 80), udp(20000, 80)},
                                       .ingress = rules,
                                       .egress = rules,
                                       .direct = deny_all().allow(label{"web"}),
                                       .labels = {"web"}}),
                           "box");
        });
        CHECK(generations() == 0);
        return std::move(held).connect(inside.fd());
    };
    endpoint link = connect();
    CHECK(generations() == 1);
    SECTION("changes") {
        link.update({.publish = std::vector<published_port>{tcp(20001, 81)}});
        CHECK(generations() == 1);
        link.update({.ingress = deny_all(), .egress = rules, .direct = allow_all()});
        CHECK(generations() == 1);
        link.update({.publish = std::vector<published_port>{tcp(20000, 80), tcp(20002, 82)},
                     .ingress = rules,
                     .egress = deny_all().deny("198.51.100.0/24"_cidr),
                     .direct = deny_all()});
        CHECK(generations() == 1);
        link.disconnect();
        CHECK(generations() == 2);  // closed while its interface is there, then taken back
    }
    SECTION("an end that is waited for") {
        link.disconnect();
        CHECK(generations() == 2);
        link.disconnect();
        CHECK(generations() == 0);
    }
    SECTION("an end that comes soon") {
        link.disconnect_soon();
        net.attach().network->remover->drain();
        CHECK(generations() == 2);
    }
    const endpoint again = connect();
    CHECK(generations() == 1);
}

TEST_CASE("publishes ports for the witness", "[.][traced-ports]") {
    const char* const wanted = std::getenv(ports_variable);
    REQUIRE(wanted != nullptr);
    const auto count = static_cast<std::uint16_t>(std::atoi(wanted));
    const kumiki_test::scratch place;
    const private_netns host;
    const private_netns inside;
    const auto net = host.run([&] {
        return bridge_network::open({.name = "web",
                                     .subnet = "10.88.0.0/24"_cidr,
                                     .subnet6 = "fd00:88::/64"_cidr,
                                     .state_directory = place.path()});
    });
    const published_port ports{.host = {20000, static_cast<std::uint16_t>(19999 + count)},
                               .container = {80, static_cast<std::uint16_t>(79 + count)}};
    auto held = host.run([&] { return reserve(net.attach({.publish = {ports}}), "box"); });
    mark("begin");
    const endpoint link = std::move(held).connect(inside.fd());
    mark("endit");
    // All of them are there.
    const std::string listed =
        kumiki_test::witness(host, "nft -nn list map inet kumiki-web publish4-any");
    std::size_t found = 0;
    for (auto at = listed.find(": 10.88.0.2 . "); at != std::string::npos;
         at = listed.find(": 10.88.0.2 . ", at + 1))
        ++found;
    CHECK(found == count);
}
