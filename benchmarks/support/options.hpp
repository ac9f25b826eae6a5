// The options of the benchmarks: those that all have, those of starts, and how they are read.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <nlohmann/json.hpp>

#include <kumiki/core/text.hpp>

namespace bench {

/// An option, and where its value goes: a list takes each, a path is made absolute (places change
/// the directory), and what is true or false takes no value.
struct option {
    std::string_view name;
    std::variant<std::string*, std::filesystem::path*, std::vector<std::string>*, std::size_t*,
                 bool*>
        to;

    bool take(const std::string& value) const {
        if (auto* text = std::get_if<std::string*>(&to))
            **text = value;
        else if (auto* path = std::get_if<std::filesystem::path*>(&to))
            **path = std::filesystem::absolute(value);
        else if (auto* list = std::get_if<std::vector<std::string>*>(&to))
            (*list)->push_back(value);
        else if (auto* number = std::get_if<std::size_t*>(&to))
            return (**number = kumiki::parse_number<std::size_t>(value).value_or(0)) > 0;
        return true;
    }
};

/// What every suite is told.
struct suite_options {
    std::filesystem::path json = {};
    std::vector<std::string> only = {};
    std::size_t rounds = 100;

    bool wants(std::string_view name) const {
        return only.empty() || std::ranges::find(only, name) != only.end();
    }
    void write(const nlohmann::json& result) const {
        if (!json.empty()) std::ofstream(json) << result.dump(1) << '\n';
    }
};

/// False for what is no option, has no value, or a number that is none above 0.
inline bool parse_options(int argc, char** argv, suite_options& to, std::vector<option> known) {
    known.insert(known.end(),
                 {{"--json", &to.json}, {"--only", &to.only}, {"--rounds", &to.rounds}});
    for (int i = 1; i < argc; ++i) {
        const auto found = std::ranges::find(known, argv[i], &option::name);
        if (found == known.end()) return false;
        if (auto* flag = std::get_if<bool*>(&found->to))
            **flag = true;
        else if (++i == argc || !found->take(argv[i]))
            return false;
    }
    return true;
}

/// What the suites of starts are told besides.
struct start_options : suite_options {
    std::string busybox = "/bin/busybox";
    std::string payload = {};
    std::string preload = {};  ///< a library for the OCI runtimes; the others leave it alone
    std::filesystem::path trace = {};
    bool steps = false;
};

inline bool parse_start_options(int argc, char** argv, start_options& to,
                                std::vector<option> known) {
    known.insert(
        known.end(),
        {{"--busybox", &to.busybox}, {"--payload", &to.payload}, {"--preload", &to.preload}});
    return parse_options(argc, argv, to, std::move(known)) && !to.payload.empty();
}
/// The same for main_of(), of a suite with no options of its own.
inline bool parse_start_options(int argc, char** argv, start_options& to) {
    return parse_start_options(argc, argv, to, {});
}

inline constexpr const char* start_usage =
    "usage: bench_NAME --payload FILE [--rounds N] [--only NAME]... [--json FILE]\n"
    "                  [--busybox FILE] [--preload LIBRARY]\n"
    "and --steps for bench_start, --trace FILE for bench_timeline: see benchmarks/run --help\n";

}  // namespace bench
