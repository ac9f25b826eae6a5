#include <atomic>
#include <string>
#include <thread>

#include <kumiki/network/endpoint_remover.hpp>

#include "network/frames.hpp"
#include "network/town.hpp"
#include "support/catch.hpp"
#include "support/netns.hpp"

using namespace kumiki;
using namespace kumiki::literals;
using namespace kumiki_test;

namespace {

/// Sends frames from inside of a namespace as fast as it can, until it is told to stop.
class hammer {
  public:
    hammer(const node& inside, std::vector<byte_string> frames) {
        socket_ = inside.ns.run([] {
            unique_fd fd(sys::check(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), "socket"));
            sockaddr_ll to{};
            to.sll_family = AF_PACKET;
            to.sll_ifindex = static_cast<int>(::if_nametoindex("eth0"));
            sys::check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to), "bind");
            return fd;
        });
        thread_ = std::thread([this, all = std::move(frames)] {
            while (!stop_)
                for (const byte_string& each : all)
                    if (::send(socket_.get(), each.data(), each.size(), MSG_DONTWAIT) > 0) ++sent_;
        });
    }
    ~hammer() {
        stop_ = true;
        thread_.join();
    }
    int sent() const { return sent_; }

  private:
    unique_fd socket_;
    std::atomic<bool> stop_{false};
    std::atomic<int> sent_{0};
    std::thread thread_;
};

int received(const unique_fd& socket) {
    int count = 0;
    char text[64];
    while (::recv(socket.get(), text, sizeof text, MSG_DONTWAIT) > 0) ++count;
    return count;
}

}  // namespace

TEST_CASE("Nothing that was denied to a container leaves it while its connection goes") {
    NEEDS_NETNS;
    town net;
    net.outside.route("203.0.113.0/24"_cidr, "192.0.2.1"_ip);
    const auto world = serve(net.outside.ns, udp_type, "0.0.0.0"_ip, 53);
    const auto service = serve(net.host.ns, udp_type, "0.0.0.0"_ip, 22);
    const bool allowed = GENERATE(false, true);
    const mac_address gateway = find_link(net.host.routes, "km-web")->mac.value();
    for (int round = 0; round < (allowed ? 1 : 30); ++round) {
        const node inside;
        auto link = net.connect(*net.web, inside, "box",
                                {.publish = {tcp(8080, 80)},
                                 .egress = allowed ? allow_all() : deny_all(),
                                 .address = "10.88.0.7"_ip});
        const mac_address own = mac_address::from("10.88.0.7"_ip);
        const std::string name = link.host_link();
        const mac_address port = find_link(net.host.routes, name)->mac.value();
        std::vector<byte_string> frames;
        for (const ip_address& from : {"10.88.0.7"_ip, "203.0.113.9"_ip, "192.0.2.77"_ip})
            for (const auto& [to, number] :
                 {std::pair("192.0.2.2"_ip, 53u), std::pair("192.0.2.1"_ip, 22u)})
                for (const mac_address& mac : {port, gateway})
                    frames.push_back(ethernet(mac, own, 0x0800, udp_packet(from, to, number)));
        const hammer sender(inside, frames);
        while (sender.sent() < 100) std::this_thread::yield();
        link.disconnect_soon();
        // The address is free once nothing is left.
        const auto again = net.host.ns.run(
            [&] { return reserve(net.web->attach({.address = "10.88.0.7"_ip}), "again"); });
        CHECK_FALSE(find_link(net.host.routes, name));
    }
    const int arrived = received(world);
    if (allowed) CHECK(arrived > 0);  // it would be seen
    if (!allowed) CHECK(arrived == 0);
    CHECK(received(service) == 0);
    CHECK(output_of(net.host, "nft -nn -s list ruleset").find("10.88.0.7") == std::string::npos);
}
