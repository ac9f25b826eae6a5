#include <kumiki/core/version.hpp>

#include "support/catch.hpp"

TEST_CASE("the version's text is made of its numbers") {
    CHECK(kumiki::version == std::to_string(KUMIKI_VERSION_MAJOR) + "." +
                                 std::to_string(KUMIKI_VERSION_MINOR) + "." +
                                 std::to_string(KUMIKI_VERSION_PATCH));
}
