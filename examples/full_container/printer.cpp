#include <unistd.h>

#include <cstdio>

#include <fmt/format.h>

#include <kumiki/core/text.hpp>

#include "printer.hpp"

namespace example {

printer::printer() : colours_(::isatty(STDOUT_FILENO) == 1) {}

std::string printer::paint(const char* code, std::string_view text) const {
    return colours_ ? fmt::format("\033[{}m{}\033[0m", code, text) : std::string(text);
}

void printer::title(std::string_view text) {
    fmt::print("{}\n{}\n", paint("1", text), std::string(78, '='));
}

void printer::heading(std::string_view text) {
    fmt::print("\n{} {}\n", paint("1;36", text), std::string(77 - text.size(), '-'));
    std::fflush(stdout);
}

void printer::text(std::string_view text) { fmt::print("{}", wrap(text, "  ")); }

void printer::row(std::string_view name, std::string_view value) {
    std::string lines = wrap(value, std::string(19, ' '));
    fmt::print("  {:<16} {}", name, lines.substr(19));
}

void printer::row(std::string_view name, std::string_view first, std::string_view second) {
    fmt::print("  {:<16} {:<29} {}\n", name, first, second);
}

void printer::claim(bool holds, std::string_view what) {
    ++claims_;
    failed_ += holds ? 0 : 1;
    const std::string lines = wrap(what, std::string(9, ' '));
    fmt::print("  {} {}", holds ? paint("32", "    ok") : paint("1;31", "FAILED"), lines.substr(9));
    std::fflush(stdout);
}

std::string wrap(std::string_view text, std::string_view indent, std::size_t width) {
    std::string result;
    std::string line(indent);
    for (const std::string_view word : kumiki::split(text, ' ')) {
        if (line.size() > indent.size() && line.size() + 1 + word.size() > width) {
            result += line + "\n";
            line = indent;
        }
        if (line.size() > indent.size()) line += ' ';
        line += word;
    }
    return result + line + "\n";
}

}  // namespace example
