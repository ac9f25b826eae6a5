// The options that the benchmarks of starts share.
#pragma once

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include <kumiki/core/text.hpp>

#include "place.hpp"

namespace bench {

struct start_options {
    std::string busybox = "/bin/busybox";
    std::string payload;
    std::string preload;
    std::string json;
    std::string trace;
    std::vector<std::string> only;
    std::size_t rounds = 100;

    bool wants(std::string_view name) const {
        return only.empty() || std::ranges::find(only, name) != only.end();
    }
    void write(const nlohmann::json& result) const {
        if (!json.empty()) std::ofstream(json) << result.dump(1) << '\n';
    }
};

inline constexpr const char* start_usage =
    "usage: bench_NAME --payload FILE [--rounds N] [--only NAME]... [--json FILE] [--trace FILE]\n"
    "                  [--busybox FILE] [--preload LIBRARY]\n";

inline bool parse_start_options(int argc, char** argv, start_options& to) {
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string_view option = argv[i];
        const std::string value = argv[i + 1];
        if (option == "--payload")
            to.payload = value;
        else if (option == "--busybox")
            to.busybox = value;
        else if (option == "--preload")
            to.preload = value;
        else if (option == "--json")
            to.json = fs::absolute(value);
        else if (option == "--trace")
            to.trace = fs::absolute(value);
        else if (option == "--only")
            to.only.push_back(value);
        else if (option == "--rounds")
            to.rounds = kumiki::parse_number<std::size_t>(value).value_or(0);
        else
            return false;
    }
    return argc % 2 == 1 && !to.payload.empty() && to.rounds > 0;
}

}  // namespace bench
