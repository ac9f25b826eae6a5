#include <stdexcept>
#include <vector>

#include <kumiki/core/observer.hpp>
#include <kumiki/core/scope_exit.hpp>

#include "support/catch.hpp"

namespace {

struct recorder final : kumiki::observer {
    std::vector<std::string> said;
    void release_failed(const kumiki::error& failure) noexcept override {
        said.emplace_back(failure.what());
    }
    void notice(std::string_view text) noexcept override { said.emplace_back(text); }
};

TEST_CASE("a process without an observer is told nothing and nothing breaks") {
    kumiki::observer* const before = kumiki::set_observer(nullptr);
    const kumiki::scope_exit restore([&] { kumiki::set_observer(before); });
    kumiki::detail::report_notice("unheard");
    kumiki::detail::release_quietly([] { throw kumiki::error(EIO, {.operation = "close"}); });
    kumiki::detail::release_quietly([] { throw std::runtime_error("other"); });
    SUCCEED();
}

TEST_CASE("setting an observer returns the one before") {
    recorder first;
    recorder second;
    kumiki::observer* const before = kumiki::set_observer(&first);
    CHECK(kumiki::set_observer(&second) == &first);
    CHECK(kumiki::set_observer(before) == &second);
}

TEST_CASE("the observer hears of notices and of releases that failed, once each") {
    recorder heard;
    kumiki::observer* const before = kumiki::set_observer(&heard);
    const kumiki::scope_exit restore([&] { kumiki::set_observer(before); });
    kumiki::detail::report_notice("a fallback");
    bool ran = false;
    kumiki::detail::release_quietly([&] { ran = true; });
    CHECK(ran);
    kumiki::detail::release_quietly([] { throw kumiki::error(EBUSY, {.operation = "rmdir"}); });
    REQUIRE(heard.said.size() == 2);
    CHECK(heard.said[0] == "a fallback");
    CHECK(heard.said[1] == "rmdir: EBUSY (Device or resource busy)");
}

TEST_CASE("a release that throws something foreign is a notice, not the end of the program") {
    recorder heard;
    kumiki::observer* const before = kumiki::set_observer(&heard);
    const kumiki::scope_exit restore([&] { kumiki::set_observer(before); });
    kumiki::detail::release_quietly([] { throw 42; });
    REQUIRE(heard.said.size() == 1);
    CHECK(heard.said[0].find("not a kumiki::error") != std::string::npos);
}

}  // namespace
