// The numbers of a pressure file (PSI): how much of the time processes of a group wait for memory,
// processors, io or interrupts. Text only; pressure.hpp reads the files and sets triggers.
//
// Source: Documentation/accounting/psi.rst. Kernel: 4.20; the irq file, which has the line "full"
// alone, 6.1.
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

#include <kumiki/core/text.hpp>

namespace kumiki::inline v0 {

/// What processes wait for.
enum class pressure_resource : std::uint8_t { memory, cpu, io, irq };

/// "memory.pressure": the control file.
constexpr std::string_view pressure_key(pressure_resource resource) noexcept {
    constexpr std::string_view keys[] = {"memory.pressure", "cpu.pressure", "io.pressure",
                                         "irq.pressure"};
    return keys[static_cast<std::size_t>(resource)];
}

/// One line of a pressure file: hundredths of a percent over 10, 60 and 300 s, and the whole time.
struct pressure_share {
    std::uint32_t average_10 = 0;  ///< 1234 is 12.34 %
    std::uint32_t average_60 = 0;
    std::uint32_t average_300 = 0;
    std::chrono::microseconds total{};
    bool operator==(const pressure_share&) const = default;
};

/// A group's pressure for one resource.
struct pressure {
    pressure_share some{};  ///< at least one process waited
    pressure_share full{};  ///< all that could run waited
    bool operator==(const pressure&) const = default;
};

/// The numbers in the text of a pressure file; what it lacks is zero.
constexpr pressure parse_pressure(std::string_view text) noexcept {
    const auto hundredths = [](std::string_view number) -> std::uint32_t {
        const auto dot = number.find('.');
        const auto whole = parse_number<std::uint32_t>(number.substr(0, dot)).value_or(0);
        if (dot == std::string_view::npos || number.size() != dot + 3) return whole * 100;
        return whole * 100 + parse_number<std::uint32_t>(number.substr(dot + 1)).value_or(0);
    };
    pressure found;
    while (auto line = next_field(text, '\n')) {
        const auto kind = next_field(*line, ' ');
        if (kind != "some" && kind != "full") continue;
        pressure_share& share = kind == "some" ? found.some : found.full;
        while (const auto field = next_field(*line, ' ')) {
            const auto value = field->substr(field->find('=') + 1);
            if (field->starts_with("avg10=")) share.average_10 = hundredths(value);
            if (field->starts_with("avg60=")) share.average_60 = hundredths(value);
            if (field->starts_with("avg300=")) share.average_300 = hundredths(value);
            if (field->starts_with("total="))
                share.total =
                    std::chrono::microseconds(parse_number<std::int64_t>(value).value_or(0));
        }
    }
    return found;
}

}  // namespace kumiki::inline v0
