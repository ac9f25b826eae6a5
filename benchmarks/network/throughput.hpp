// Throughput as iperf3 measures it, from a client outside of the host to a server in a container: to a
// published port of kumiki's, and routed over a plain bridge with no rules at all.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "network/hosts.hpp"
#include "support/series.hpp"

namespace bench {

/// An iperf3 server in a namespace. It ends with the benchmark, however that ends.
class iperf_server {
  public:
    explicit iperf_server(const netns& inside) : output_(text_file()) {
        const visit here(inside.fd());
        server_ = std::make_unique<running_program>(
            std::vector<std::string>{"setpriv", "--pdeathsig", "KILL", "iperf3", "-s"}, -1,
            output_.get());
    }

  private:
    unique_fd output_;
    std::unique_ptr<running_program> server_;
};

/// Gbit/s, of `size` sent from the namespace to the container, or by it.
inline double throughput(const netns& from, const std::string& address, const std::string& size,
                         bool is_received) {
    const visit here(from.fd());
    std::vector<std::string> args{"iperf3", "-J", "-n", size, "-c", address};
    if (is_received) args.emplace_back("-R");
    const auto result = nlohmann::json::parse(run_program(args));
    return result.at("end").at("sum_received").at("bits_per_second").get<double>() / 1e9;
}

/// A container with a server, to be reached at `address`.
struct served {
    std::string name;
    const host_namespaces* namespaces;
    std::string from_outside;  ///< the address for the client
    std::string from_host;
    std::unique_ptr<iperf_server> server;
};

/// The ways to be measured, each for all of `containers`.
struct throughput_way {
    const char* title;
    bool is_from_host;
    bool is_received;
};
inline constexpr throughput_way throughput_ways[] = {
    {"iperf3: from outside to the container", false, false},
    {"iperf3: from the container to outside", false, true},
    {"iperf3: from the host to the container", true, false}};

inline std::vector<series> throughputs(const std::vector<served>& containers,
                                       const throughput_way& way, const std::string& size) {
    std::vector<series> field;
    for (const served& each : containers)
        field.push_back({each.name, [&each, way, size] {
                             const auto& [host, client, inside] = *each.namespaces;
                             return throughput(
                                 way.is_from_host ? host : client,
                                 way.is_from_host ? each.from_host : each.from_outside, size,
                                 way.is_received);
                         }});
    return field;
}

}  // namespace bench
