// How the demonstration looks on a terminal of 80 columns: headings, rows, and claims that are
// counted.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace example {

class printer {
  public:
    printer();

    void title(std::string_view text);
    void heading(std::string_view text);
    /// A paragraph, broken at blanks.
    void text(std::string_view text);
    void row(std::string_view name, std::string_view value);
    void row(std::string_view name, std::string_view first, std::string_view second);
    /// Prints whether it holds, and counts.
    void claim(bool holds, std::string_view what);

    std::size_t claims() const noexcept { return claims_; }
    std::size_t failed() const noexcept { return failed_; }

  private:
    std::string paint(const char* code, std::string_view text) const;

    bool colours_;
    std::size_t claims_ = 0;
    std::size_t failed_ = 0;
};

/// `text` in lines of at most `width` characters, each behind `indent`.
std::string wrap(std::string_view text, std::string_view indent, std::size_t width = 78);

}  // namespace example
