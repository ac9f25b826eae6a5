// bench_network: what a container's network costs: an endpoint set up and taken back, 206 ports published
// among many, a connection through many mappings, rules put back, and throughput. benchmarks/run builds it;
// see docs/performance.md.
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <kumiki/core/text.hpp>

#include "network/endpoint.hpp"
#include "network/heal.hpp"
#include "network/hosts.hpp"
#include "network/programs.hpp"
#include "network/throughput.hpp"
#include "support/options.hpp"
#include "support/series.hpp"

namespace bench {
namespace {

void measure_endpoints(const network_place& where, std::size_t rounds, nlohmann::json& json) {
    endpoint_trial trial;
    kumiki_side ours(where);
    netns first("first");
    std::vector<std::unique_ptr<endpoint_side>> others;
    std::vector<contender> field;
    const auto enter = [&](const char* name, endpoint_side& side) {
        field.push_back({.name = name, .run = [&] { return trial.run(side); }});
    };
    const auto enter_other = [&](const char* name, std::unique_ptr<endpoint_side> side) {
        others.push_back(std::move(side));
        enter(name, *others.back());
    };
    const unique_fd open(
        sys::check(::dup3(first.fd(), endpoint_side::inside_fd, O_CLOEXEC), "dup3"));
    enter_other("bare, unguarded", std::make_unique<unguarded_side>());
    enter_other("bare", std::make_unique<bare_side>(ours, first));
    enter("kumiki", ours);
    using enum nft_side::way;
    enter_other("ip and nft, as few as can be", std::make_unique<nft_side>(80, batches));
    enter_other("ip and nft", std::make_unique<nft_side>(81, each));
    if (fs::exists("/usr/sbin/iptables"))
        enter_other("ip and iptables", std::make_unique<iptables_side>(82));
    if (fs::exists(cni_side::directory))
        enter_other("CNI bridge and portmap", std::make_unique<cni_side>(where, 83));

    std::vector<contender*> together;
    for (contender& each : field) together.push_back(&each);
    measure(together, rounds, warm_up / 2);
    fmt::print(
        "\n| an endpoint with one published port | samples | set up | taken back | set up: it / "
        "kumiki (95 %) |\n|---|---|---|---|---|\n");
    const auto is_ours = [](const contender& each) { return each.name == "kumiki"; };
    const contender& kumiki = *std::ranges::find_if(field, is_ours);
    for (const contender& each : field) {
        const bool is_bare = each.name.starts_with("bare");
        const ratio r = is_bare ? ratio_of_medians(kumiki.first, each.first)
                                : ratio_of_medians(each.first, kumiki.first);
        fmt::print("| {} | {} | {} | {} | {} |\n", each.name, each.first.size(), cell(each.first),
                   cell(each.released),
                   is_ours(each) ? ""
                   : is_bare     ? "kumiki / it: " + cell(r)
                                 : cell(r));
        auto& row = json["endpoint"][each.name];
        row = {{"set_up", to_json(each.first)}, {"taken_back", to_json(each.released)}};
        if (!is_ours(each)) row["ratio"] = to_json(r);
    }
}

/// Two of a field, of whose medians the ratio is shown.
struct compared {
    std::string above;
    std::string below;
};

/// A table of one thing, in `unit`, with a ratio in the row of `above`.
void report(const std::string& title, const char* unit, const std::vector<series>& field,
            const std::vector<compared>& pairs, nlohmann::json& json) {
    fmt::print("\n| {} | samples | {}: median (quartiles; minimum) | ratio (95 %) |\n", title,
               unit);
    fmt::print("|---|---|---|---|\n");
    for (const series& each : field) {
        const summary s = summarise(each.samples);
        auto& row = json[title][each.name];
        const bool is_rate = std::string_view(unit) == "Gbit/s";  // --compare turns rates round
        row = {{"unit", unit},
               {"median", s.median},
               {"lower_quartile", s.lower_quartile},
               {"upper_quartile", s.upper_quartile},
               {"min", s.min},
               {is_rate ? "rates" : "samples", each.samples}};
        std::string ratios;
        for (const auto& [above, below] : pairs) {
            const auto other = std::ranges::find(field, below, &series::name);
            if (each.name != above || other == field.end()) continue;
            const ratio r = ratio_of_medians(each.samples, other->samples);
            ratios += fmt::format("{}to \"{}\": {}", ratios.empty() ? "" : "; ", below, cell(r));
            row["ratios"][below] = to_json(r);
        }
        fmt::print("| {} | {} | {:.1f} ({:.1f} to {:.1f}; {:.1f}) | {} |\n", each.name, s.count,
                   s.median, s.lower_quartile, s.upper_quartile, s.min, ratios);
    }
}

void measure_publishing(const network_place& where, std::size_t rounds, nlohmann::json& json) {
    constexpr kumiki::port_range outside{50000, 50205};
    constexpr kumiki::port_range inside{1000, 1205};
    const std::vector<kumiki::published_port> ports{{.host = outside, .container = inside}};
    std::vector<std::unique_ptr<kumiki_host>> hosts;
    std::vector<series> transactions;
    std::vector<series> endpoints;
    for (const std::size_t mappings : {0U, 1'000U, 100'000U}) {
        hosts.push_back(
            std::make_unique<kumiki_host>(where, fmt::format("publish-{}", mappings), mappings));
        const auto name = fmt::format("{} mappings are there", mappings);
        kumiki_host* const host = hosts.back().get();
        const kumiki::firewall_rules rules{.container = "measured",
                                           .port = "measured",
                                           .addresses = {kumiki::ip_address::parse("10.64.0.9"),
                                                         kumiki::ip_address::parse("fd00:64::9")},
                                           .publish = ports};
        transactions.push_back({name, [host, rules] {
                                    const double time =
                                        time_each(1, [&] { host->rules().connect(rules); });
                                    host->rules().disconnect(rules);
                                    return time;
                                }});
        endpoints.push_back({name, [host, ports] {
                                 const std::uint64_t start = now();
                                 auto link = host->connect(host->namespaces().inside, ports);
                                 const std::uint64_t end = now();
                                 link.disconnect();
                                 return static_cast<double>(end - start) / 1000;
                             }});
    }
    const std::vector<compared> pairs{{transactions[1].name, transactions[0].name},
                                      {transactions[2].name, transactions[0].name}};
    measure(transactions, rounds);
    report("kumiki, 206 ports published: the transaction", "us", transactions, pairs, json);
    measure(endpoints, rounds);
    report("kumiki, 206 ports published: the endpoint", "us", endpoints, pairs, json);
}

void measure_connections(const network_place& where, std::size_t rounds, nlohmann::json& json) {
    constexpr int each = 20;
    std::vector<std::unique_ptr<kumiki_host>> ours;
    std::vector<std::unique_ptr<plain_host>> theirs;
    std::vector<kumiki::endpoint> links;
    std::vector<series> field;
    const auto enter = [&](const std::string& name, const host_namespaces& of,
                           kumiki::ip_address server) {
        field.push_back({name, [pair = std::make_shared<client_and_server>(of, server)] {
                             return pair->time_connections(each);
                         }});
    };
    for (const std::size_t mappings : {1U, 10'000U}) {
        const auto name = fmt::format("connect-{}", mappings);
        ours.push_back(std::make_unique<kumiki_host>(where, name, mappings - 1));
        links.push_back(
            ours.back()->connect(ours.back()->namespaces().inside, {kumiki::tcp(8080, 80)}));
        enter(fmt::format("kumiki, {} mappings", mappings), ours.back()->namespaces(),
              links.back().addresses().front());
    }
    for (const std::size_t mappings : {1U, 10'000U}) {
        if (!fs::exists("/usr/sbin/iptables")) break;
        theirs.push_back(std::make_unique<plain_host>(fmt::format("rules-{}", mappings)));
        theirs.back()->publish_by_iptables(mappings);
        enter(fmt::format("iptables, {} mappings", mappings), theirs.back()->namespaces(),
              kumiki::ip_address::parse("10.64.0.2"));
    }
    measure(field, rounds);
    report("a TCP connection set up through a published port", "us", field,
           {{"kumiki, 10000 mappings", "kumiki, 1 mappings"},
            {"iptables, 10000 mappings", "iptables, 1 mappings"},
            {"iptables, 10000 mappings", "kumiki, 10000 mappings"}},
           json);
}

void measure_healing(const network_place& where, std::size_t rounds, nlohmann::json& json) {
    std::vector<std::unique_ptr<kept_host>> hosts;
    std::vector<series> field;
    for (const std::size_t containers : {1U, 100U}) {
        hosts.push_back(std::make_unique<kept_host>(where, containers));
        field.push_back({fmt::format("{} container{}", containers, containers == 1 ? "" : "s"),
                         [host = hosts.back().get()] { return host->flush(); }});
    }
    measure(field, rounds);
    const std::string title = "kumiki's rules are back after a foreign flush";
    report(title, "us", field, {{field[1].name, field[0].name}}, json);
    for (const series& each : field) {
        if (each.samples.empty()) continue;
        const double worst = std::ranges::max(each.samples);
        json[title][each.name]["max"] = worst;
        fmt::print("\nThe worst with {}: {:.1f} us.\n", each.name, worst);
    }
}

void measure_throughput(const network_place& where, std::size_t rounds, nlohmann::json& json) {
    if (!fs::exists("/usr/bin/iperf3"))
        return fmt::print(stderr, "iperf3 is not there: throughput is left out.\n");
    kumiki_host ours(where, "ours", 0);
    const plain_host theirs("plain");
    const plain_host tracked("tracked");
    tracked.track_connections();
    const auto link = ours.connect(ours.namespaces().inside, {kumiki::tcp(5201)});
    std::vector<served> containers;
    containers.push_back({"kumiki", &ours.namespaces(), "192.0.2.1",
                          to_string(link.addresses().front()),
                          std::make_unique<iperf_server>(ours.namespaces().inside)});
    containers.push_back({"plain veth and bridge", &theirs.namespaces(), "10.64.0.2", "10.64.0.2",
                          std::make_unique<iperf_server>(theirs.namespaces().inside)});
    containers.push_back({"the same with connection tracking", &tracked.namespaces(), "10.64.0.2",
                          "10.64.0.2",
                          std::make_unique<iperf_server>(tracked.namespaces().inside)});
    const timespec listening{.tv_sec = 0, .tv_nsec = 300'000'000};
    ::nanosleep(&listening, nullptr);
    for (const throughput_way& way : throughput_ways) {
        auto field = throughputs(containers, way, "512M");
        measure(field, std::max<std::size_t>(rounds / 4, 5), 1);
        report(way.title, "Gbit/s", field,
               {{"kumiki", "plain veth and bridge"},
                {"kumiki", "the same with connection tracking"},
                {"the same with connection tracking", "plain veth and bridge"}},
               json);
    }
}

void run(const suite_options& wanted) {
    const network_place where;
    nlohmann::json json = host();
    warn_of_load();
    fmt::print("\n{}, {} rounds.\n", machine(json), wanted.rounds);
    if (wanted.wants("endpoint")) measure_endpoints(where, wanted.rounds, json);
    if (wanted.wants("publish")) measure_publishing(where, wanted.rounds, json);
    if (wanted.wants("connection")) measure_connections(where, wanted.rounds, json);
    if (wanted.wants("heal")) measure_healing(where, wanted.rounds, json);
    if (wanted.wants("throughput")) measure_throughput(where, wanted.rounds, json);
    wanted.write(json);
}

constexpr const char* usage =
    "bench_network [--rounds N] [--only NAME]... [--json FILE]\n"
    "NAME is endpoint, publish, connection, heal or throughput.\n";

bool parse(int argc, char** argv, suite_options& to) {
    return parse_options(argc, argv, to, {}) && to.rounds > 1;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    return bench::main_of(argc, argv, "bench_network", bench::usage, bench::parse, bench::run);
}
