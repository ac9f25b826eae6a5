// The same endpoint by programs: ip and nft, ip and iptables, and the CNI plugins. Each works on a bridge of
// its own, which is there already, as are the nftables map and the rule that looks in it.
//
// They do less than kumiki: nothing checks what the container sends, and there is no policy.
#pragma once

#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "network/endpoint.hpp"
#include "network/program.hpp"

namespace bench {

/// The commands that set an endpoint of network 10.N.0.0/24, fd00:N::/64 up.
struct endpoint_commands {
    int number;
    std::string bridge = fmt::format("prog{}", number);
    std::string port = fmt::format("port{}", number);

    void make_bridge() const {
        run_program(words(fmt::format("ip link add {} type bridge", bridge)));
        run_program(words(fmt::format("ip addr add 10.{}.0.1/24 dev {}", number, bridge)));
        run_program(words(fmt::format("ip addr add fd00:{}::1/64 dev {} nodad", number, bridge)));
        run_program(words(fmt::format("ip link set {} up", bridge)));
    }
    /// Of `ip`, in the host's namespace.
    std::vector<std::string> outside(const netns& inside) const {
        return {fmt::format("link add {} type veth peer name eth0 netns {}", port, inside.name()),
                fmt::format("link set {} master {}", port, bridge),
                fmt::format("link set {} up", port)};
    }
    /// Of `ip -n`.
    std::vector<std::string> within() const {
        return {"link set lo up",
                fmt::format("addr add 10.{}.0.2/24 dev eth0", number),
                fmt::format("addr add fd00:{}::2/64 dev eth0 nodad", number),
                "link set eth0 up",
                fmt::format("route add default via 10.{}.0.1", number),
                fmt::format("route add default via fd00:{}::1", number)};
    }
    void run_each(const netns& inside) const {
        for (const std::string& line : outside(inside)) run_program(words("ip " + line));
        for (const std::string& line : within())
            run_program(words("ip -n " + inside.name() + " " + line));
    }
    void run_batches(const netns& inside) const {
        run_program({"ip", "-batch", "-"}, fmt::format("{}\n", fmt::join(outside(inside), "\n")));
        run_program({"ip", "-n", inside.name(), "-batch", "-"},
                    fmt::format("{}\n", fmt::join(within(), "\n")));
    }
    void delete_port() const { run_program({"ip", "link", "del", port}); }
};

/// ip and nft: a program for each step, or as few as can be.
class nft_side : public endpoint_side {
  public:
    enum class way : std::uint8_t { each, batches };

    nft_side(int number, way how) : commands_{number}, how_(how) {
        commands_.make_bridge();
        run_program({"nft", "-f", "-"}, fmt::format(R"(table ip prog{0} {{
    map ports {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
    chain prerouting {{
        type nat hook prerouting priority dstnat
        dnat to ip daddr . meta l4proto . th dport map @ports
    }}
}}
)",
                                                    number));
    }
    void set_up(const netns& inside) override {
        if (how_ == way::each)
            commands_.run_each(inside);
        else
            commands_.run_batches(inside);
        run_program(
            words(fmt::format("nft add element ip prog{0} ports {{ 10.{0}.0.1 . tcp . 8080 : "
                              "10.{0}.0.2 . 80 }}",
                              commands_.number)));
    }
    void take_back() override {
        run_program(
            words(fmt::format("nft delete element ip prog{0} ports {{ 10.{0}.0.1 . tcp . 8080 }}",
                              commands_.number)));
        commands_.delete_port();
    }

  private:
    endpoint_commands commands_;
    way how_;
};

/// ip and iptables, for both families as their users have to.
class iptables_side : public endpoint_side {
  public:
    explicit iptables_side(int number) : commands_{number} { commands_.make_bridge(); }
    void set_up(const netns& inside) override {
        commands_.run_each(inside);
        change_rules("-A");
    }
    void take_back() override {
        change_rules("-D");
        commands_.delete_port();
    }

  private:
    void change_rules(const char* how) const {
        const int n = commands_.number;
        run_program(
            words(fmt::format("iptables -t nat {} PREROUTING -d 10.{}.0.1 -p tcp --dport "
                              "8080 -j DNAT --to-destination 10.{}.0.2:80",
                              how, n, n)));
        run_program(
            words(fmt::format("ip6tables -t nat {} PREROUTING -d fd00:{}::1 -p tcp --dport "
                              "8080 -j DNAT --to-destination [fd00:{}::2]:80",
                              how, n, n)));
        run_program(words(
            fmt::format("iptables {} FORWARD -d 10.{}.0.2 -p tcp --dport 80 -j ACCEPT", how, n)));
        run_program(words(
            fmt::format("ip6tables {} FORWARD -d fd00:{}::2 -p tcp --dport 80 -j ACCEPT", how, n)));
    }

    endpoint_commands commands_;
};

/// The CNI plugins "bridge" (which runs "host-local") and "portmap", as a container engine runs them.
class cni_side : public endpoint_side {
  public:
    static constexpr const char* directory = "/usr/lib/cni";

    cni_side(const network_place& where, int number) {
        bridge_ = {{"cniVersion", "1.0.0"},
                   {"name", "bench"},
                   {"type", "bridge"},
                   {"bridge", "cni0"},
                   {"isGateway", true},
                   {"hairpinMode", true},
                   {"ipam",
                    {{"type", "host-local"},
                     {"dataDir", where.directory() + "/cni"},
                     {"ranges",
                      {{{{"subnet", fmt::format("10.{}.0.0/24", number)}}},
                       {{{"subnet", fmt::format("fd00:{}::/64", number)}}}}},
                     {"routes", {{{"dst", "0.0.0.0/0"}}, {{"dst", "::/0"}}}}}}};
        portmap_ = {{"cniVersion", "1.0.0"},
                    {"name", "bench"},
                    {"type", "portmap"},
                    {"runtimeConfig",
                     {{"portMappings",
                       {{{"hostPort", 8080}, {"containerPort", 80}, {"protocol", "tcp"}}}}}}};
    }
    void set_up(const netns& inside) override {
        netns_ = inside.path();
        portmap_["prevResult"] = nlohmann::json::parse(call("bridge", "ADD", bridge_));
        call("portmap", "ADD", portmap_);
    }
    void take_back() override {
        call("portmap", "DEL", portmap_);
        call("bridge", "DEL", bridge_);
    }

  private:
    std::string call(const std::string& plugin, const char* command,
                     const nlohmann::json& configuration) const {
        return run_program(
            {fmt::format("{}/{}", directory, plugin)}, configuration.dump(),
            {std::string("CNI_COMMAND=") + command, "CNI_CONTAINERID=box", "CNI_IFNAME=eth0",
             "CNI_NETNS=" + netns_, std::string("CNI_PATH=") + directory});
    }

    nlohmann::json bridge_;
    nlohmann::json portmap_;
    std::string netns_;
};

}  // namespace bench
