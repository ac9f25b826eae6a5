#include <kumiki/core/flags.hpp>

#include "support/catch.hpp"

namespace {

enum class colour : unsigned char { none = 0, red = 1, green = 2, blue = 4 };
enum class plain { one = 1, two = 2 };

}  // namespace

template <>
inline constexpr bool kumiki::is_flags<colour> = true;

namespace {

using kumiki::has;

static_assert(kumiki::flags<colour>);
static_assert(!kumiki::flags<plain>, "an enumeration that did not ask stays as it is");
static_assert(!kumiki::flags<int>);
static_assert(std::is_same_v<decltype(kumiki::to_underlying(colour::red)), unsigned char>);

TEST_CASE("flags combine, intersect, differ and invert") {
    using kumiki::operator|, kumiki::operator&, kumiki::operator^, kumiki::operator~;
    const colour yellow = colour::red | colour::green;
    CHECK(kumiki::to_underlying(yellow) == 3);
    CHECK((yellow & colour::red) == colour::red);
    CHECK((yellow & colour::blue) == colour::none);
    CHECK((yellow ^ colour::red) == colour::green);
    CHECK((~yellow & colour::blue) == colour::blue);
    CHECK(kumiki::to_underlying(~colour::none) == 255);
}

TEST_CASE("flags are added and removed in place") {
    using kumiki::operator|=, kumiki::operator&=, kumiki::operator~;
    colour mixed = colour::red;
    mixed |= colour::blue;
    CHECK(has(mixed, colour::blue));
    mixed &= ~colour::red;
    CHECK(mixed == colour::blue);
}

TEST_CASE("has asks for every flag of a set") {
    using kumiki::operator|;
    const colour yellow = colour::red | colour::green;
    CHECK(has(yellow, colour::red));
    CHECK(has(yellow, yellow));
    CHECK(has(yellow, colour::none));
    CHECK_FALSE(has(yellow, colour::blue));
    CHECK_FALSE(has(colour::red, yellow));
    CHECK_FALSE(has(colour::none, colour::red));
}

}  // namespace
