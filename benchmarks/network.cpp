// bench_network: what a container's network costs: an endpoint set up and taken back, 206 ports published
// among many, a connection through many mappings, and throughput. benchmarks/run builds it; see
// docs/performance.md.
#include <sys/utsname.h>
#include <unistd.h>

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
#include "network/programs.hpp"

namespace bench {
namespace {

struct options {
    std::string json;
    std::vector<std::string> only;
    std::size_t rounds = 100;

    bool wants(std::string_view name) const {
        return only.empty() || std::ranges::find(only, name) != only.end();
    }
};

/// Two medians, and which ratio of them is of interest.
struct pair {
    const char* above;
    const char* below;
};

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

void run(const options& wanted) {
    const network_place where;
    utsname system{};
    ::uname(&system);
    const unsigned processors = std::thread::hardware_concurrency();
    nlohmann::json json{{"kernel", system.release}, {"processors", processors}, {"unit", "us"}};
    warn_of_load();
    fmt::print("\nLinux {}, {} processors, {} rounds.\n", system.release, processors,
               wanted.rounds);
    if (wanted.wants("endpoint")) measure_endpoints(where, wanted.rounds, json);
    if (!wanted.json.empty()) std::ofstream(wanted.json) << json.dump(1) << '\n';
}

constexpr const char* usage =
    "bench_network [--rounds N] [--only NAME]... [--json FILE]\n"
    "NAME is endpoint, publish, connection or throughput.\n";

bool parse(int argc, char** argv, options& to) {
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string_view option = argv[i];
        const std::string value = argv[i + 1];
        if (option == "--json")
            to.json = fs::absolute(value);
        else if (option == "--only")
            to.only.push_back(value);
        else if (option == "--rounds")
            to.rounds = kumiki::parse_number<std::size_t>(value).value_or(0);
        else
            return false;
    }
    return argc % 2 == 1 && to.rounds > 1;
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    return bench::main_of(argc, argv, "bench_network", bench::usage, bench::parse, bench::run);
}
