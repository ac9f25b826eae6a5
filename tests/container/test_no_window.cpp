// From its first instruction to its last packet a container is under its policy: a program that does
// nothing but send to where it may not, and a counter of packets outside.
#include <sys/stat.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>

#include <kumiki/container/container.hpp>
#include <kumiki/network/endpoint_change.hpp>

#include "container/support.hpp"
#include "network/frames.hpp"
#include "network/town.hpp"
#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace std::chrono_literals;
using kumiki_test::town;

#if defined(__x86_64__)
#define NEEDS_SENDER NEEDS_NETNS
#else
#define NEEDS_SENDER KUMIKI_SKIP("the program that sends is written for x86-64")
#endif

namespace {

/// A static program of two system calls: socket(), then sendto() to port 53 of `to` again and again.
std::string sender_program(const ip_address& to) {
    const auto [address, address_size] = kumiki_test::endpoint_address(to, 53).to_kernel();
    unsigned char code[] = {0xb8, 41,   0,    0,    0,  // mov eax, socket
                            0xbf, 2,    0,    0,    0,  // mov edi, AF_INET
                            0xbe, 2,    0,    0,    0,  // mov esi, SOCK_DGRAM
                            0x31, 0xd2,  // xor edx, edx
                            0x0f, 0x05,  // syscall
                            0x41, 0x89, 0xc4,  // mov r12d, eax
                            0xb8, 44,   0,    0,    0,  // again: mov eax, sendto
                            0x44, 0x89, 0xe7,  // mov edi, r12d
                            0x48, 0x8d, 0x35, 0x19, 0, 0, 0,  // lea rsi, [rip + text]
                            0xba, 4,    0,    0,    0,  // mov edx, 4
                            0x45, 0x31, 0xd2,  // xor r10d, r10d
                            0x4c, 0x8d, 0x05, 0x0e, 0, 0, 0,  // lea r8, [rip + address]
                            0x41, 0xb9, 16,   0,    0, 0,  // mov r9d, 16
                            0x0f, 0x05,  // syscall
                            0xeb, 0xd8,  // jmp again
                            'p',  'i',  'n',  'g'};  // text; the address is behind it
    code[6] = static_cast<unsigned char>(to.is_v4() ? AF_INET : AF_INET6);
    code[54] = static_cast<unsigned char>(address_size);
    std::string file(120, '\0');
    const auto put = [&](std::size_t at, std::uint64_t value, std::size_t size) {
        std::memcpy(file.data() + at, &value, size);
    };
    constexpr std::uint64_t base = 0x400000;
    const std::uint64_t size = file.size() + sizeof code + address_size;
    std::memcpy(file.data(), "\177ELF\2\1\1", 7);
    put(16, 2, 2);  // an executable
    put(18, 62, 2);  // for x86-64
    put(20, 1, 4);
    put(24, base + 120, 8);  // its entry
    put(32, 64, 8);  // where the segment's header is
    put(52, 64, 2);
    put(54, 56, 2);
    put(56, 1, 2);
    put(64, 1, 4);  // a segment to load
    put(68, 5, 4);  // to be read and executed
    put(80, base, 8);
    put(88, base, 8);
    put(96, size, 8);
    put(104, size, 8);
    put(112, 0x1000, 8);
    file.append(reinterpret_cast<const char*>(code), sizeof code);
    return file.append(reinterpret_cast<const char*>(&address), address_size);
}

struct stage : town {
    ip_address to;  ///< outside
    kumiki_test::busybox_root root{};
    unique_fd counter = outside.ns.run([this] {
        const int type = to.is_v4() ? ETH_P_IP : ETH_P_IPV6;
        return unique_fd(sys::check(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
                                             htons(static_cast<std::uint16_t>(type))),
                                    "packet socket"));
    });

    explicit stage(const ip_address& target = "192.0.2.2"_ip) : to(target) {
        const std::string path = root.path() + "/bin/sender";
        std::ofstream(path, std::ios::binary) << sender_program(to);
        REQUIRE(::chmod(path.c_str(), 0755) == 0);
    }
    container_spec spec(policy egress) const {
        auto made = kumiki_test::shell_spec(root, "");
        made.process.args = {"/bin/sender"};
        made.network = web->attach({.publish = {tcp(8080, 80)}, .egress = std::move(egress)});
        return made;
    }
    /// UDP packets for port 53 that came by since the last time.
    int seen() const {
        int count = 0;
        std::array<unsigned char, 64> packet{};
        const std::size_t ip = to.is_v4() ? 20 : 40;
        while (::recv(counter.get(), packet.data(), packet.size(), 0) >= 28)
            if (packet[to.is_v4() ? 9 : 6] == IPPROTO_UDP && packet[ip + 2] == 0 &&
                packet[ip + 3] == 53)
                ++count;
        return count;
    }
};

/// Starts the sender, gives it to `use`, and ends it.
task<void> sending(scheduler& io, container_spec spec, kumiki_test::use_container use) {
    auto box = co_await container::start(io, std::move(spec));
    use(box);
    box.signal(SIGKILL);
    auto result = co_await box.wait();
    CHECK(result.exit_code() == 128 + SIGKILL);
}

/// How often what is to be done a thousand times is done: KUMIKI_STARTS in the environment.
int starts() {
    const char* const wanted = ::getenv("KUMIKI_STARTS");
    return wanted ? std::atoi(wanted) : 100;
}

void settle() { std::this_thread::sleep_for(2ms); }

}  // namespace

TEST_CASE("no packet of a program that sends at once gets to where it must not") {
    NEEDS_SENDER;
    const ip_address to = GENERATE(as<ip_address>{}, "192.0.2.2"_ip, "2001:db8::2"_ip);
    CAPTURE(to_string(to));
    const stage here(to);
    here.host.ns.run([&] {
        scheduler io;
        const auto start = [&](policy egress) {
            io.run(sending(io, here.spec(std::move(egress)), [](container&) { settle(); }));
        };
        // What would be seen.
        start(allow_all());
        REQUIRE(here.seen() > 0);
        const policy denials[] = {deny_all(), allow_all().deny(to), deny_all().allow(to, tcp(53)),
                                  allow_all().deny(udp(53))};
        for (int i = 0; i < starts(); ++i) start(denials[i % 4]);
    });
    std::this_thread::sleep_for(100ms);
    CHECK(here.seen() == 0);
}

TEST_CASE("no packet passes while a policy is replaced by another that denies it, nor at the end") {
    NEEDS_SENDER;
    const ip_address to = GENERATE(as<ip_address>{}, "192.0.2.2"_ip, "2001:db8::2"_ip);
    CAPTURE(to_string(to));
    const stage here(to);
    here.host.ns.run([&] {
        scheduler io;
        for (int round = 0; round < starts() / 4; ++round)
            io.run(sending(io, here.spec(deny_all()), [&](container& box) {
                const policy denials[] = {allow_all().deny(to), deny_all(),
                                          deny_all().allow(to.plus(1)),
                                          allow_all().deny(udp(53)).deny(tcp(1))};
                for (int i = 0; i < 20; ++i) {
                    endpoint_change change{.egress = denials[i % 4]};
                    if (i % 5 == 0) change.publish = std::vector<published_port>{tcp(8081, 80)};
                    if (i % 5 == 1) change.publish = std::vector<published_port>{tcp(8080, 80)};
                    box.network()->update(change);
                }
            }));
    });
    std::this_thread::sleep_for(100ms);
    CHECK(here.seen() == 0);
}

TEST_CASE("a flow that was allowed ends with the change that denies it") {
    NEEDS_SENDER;
    const stage here;
    here.host.ns.run([&] {
        scheduler io;
        for (int round = 0; round < 5; ++round)
            io.run(sending(io, here.spec(allow_all()), [&](container& box) {
                settle();
                REQUIRE(here.seen() > 0);
                box.network()->update({.egress = allow_all().deny("192.0.2.2"_ip)});
                settle();  // what was sent before has arrived
                (void)here.seen();
                std::this_thread::sleep_for(20ms);
                CHECK(here.seen() == 0);
            }));
    });
    std::this_thread::sleep_for(100ms);
    CHECK(here.seen() == 0);
}
