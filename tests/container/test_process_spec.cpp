#include <string>
#include <vector>

#include <kumiki/container/process_spec.hpp>

#include "support/catch.hpp"

using namespace kumiki;
using strings = std::vector<std::string>;

namespace {

/// What `change` makes of a good description: nothing, or the message of its refusal.
template <class Change>
std::string process_refusal(Change&& change) {
    process_spec spec{.args = {"true"}};
    change(spec);
    try {
        spec.validate();
    } catch (const invalid_input& failure) {
        return failure.what();
    }
    return {};
}

strings candidates(std::string command, strings env) {
    return process_spec{.args = {std::move(command)}, .env = std::move(env)}.candidates();
}

}  // namespace

TEST_CASE("a command is enough, and there must be one") {
    CHECK(process_refusal([](process_spec&) {}).empty());
    CHECK_FALSE(process_refusal([](process_spec& spec) { spec.args = {}; }).empty());
    CHECK_FALSE(process_refusal([](process_spec& spec) { spec.args = {""}; }).empty());
    CHECK_FALSE(process_refusal([](process_spec& spec) { spec.args = {"", "a"}; }).empty());
    CHECK(process_refusal([](process_spec& spec) { spec.args = {"sh", ""}; }).empty());
}

TEST_CASE("an argument that the kernel would cut or refuse is refused before") {
    CHECK_FALSE(process_refusal([](process_spec& spec) {
                    spec.args = {"a", std::string("x\0y", 3)};
                }).empty());
    CHECK_FALSE(process_refusal([](process_spec& spec) {
                    spec.args = {"a", std::string(128 * 1024, 'x')};
                }).empty());
    CHECK(process_refusal([](process_spec& spec) {
              spec.args = {"a", std::string(128 * 1024 - 1, 'x')};
          }).empty());
    const auto why = process_refusal(
        [](process_spec& spec) { spec.args = strings(30, std::string(100 * 1024, 'x')); });
    CHECK(why.find("2 MiB") != std::string::npos);
}

TEST_CASE("the environment is made of names and values") {
    for (const std::string& variable : {std::string("A=b"), std::string("A="), std::string("A==b"),
                                        std::string("a b=c"), std::string("A=\n")}) {
        CAPTURE(variable);
        CHECK(process_refusal([&](process_spec& spec) { spec.env = {variable}; }).empty());
    }
    for (const std::string& variable : {std::string(), std::string("A"), std::string("=b"),
                                        std::string("="), std::string("A=\0", 3)}) {
        CAPTURE(variable);
        const auto why = process_refusal([&](process_spec& spec) { spec.env = {"X=y", variable}; });
        CHECK(why.find("environment") != std::string::npos);
    }
    CHECK(process_refusal([](process_spec& spec) { spec.env = {}; }).empty());
}

TEST_CASE("the working directory is an absolute path") {
    CHECK(process_refusal([](process_spec& spec) { spec.cwd = "/a/../b"; }).empty());
    for (const std::string& cwd : {std::string(), std::string("a"), std::string("./"),
                                   std::string("/a\0b", 4), "/" + std::string(5000, 'x')}) {
        CAPTURE(cwd);
        CHECK_FALSE(process_refusal([&](process_spec& spec) { spec.cwd = cwd; }).empty());
    }
}

TEST_CASE("umask and OOM score have their ranges") {
    for (const unsigned mask : {0U, 077U, 0777U})
        CHECK(process_refusal([&](process_spec& spec) { spec.umask = mask; }).empty());
    CHECK_FALSE(process_refusal([](process_spec& spec) { spec.umask = 01000; }).empty());
    for (const int score : {-1000, 0, 1000})
        CHECK(process_refusal([&](process_spec& spec) { spec.oom_score_adj = score; }).empty());
    for (const int score : {-1001, 1001})
        CHECK_FALSE(
            process_refusal([&](process_spec& spec) { spec.oom_score_adj = score; }).empty());
}

TEST_CASE("a command with a slash is looked for nowhere else") {
    CHECK(candidates("/bin/sh", {"PATH=/x"}) == strings{"/bin/sh"});
    CHECK(candidates("./a", {"PATH=/x"}) == strings{"./a"});
    CHECK(candidates("a/b", {}) == strings{"a/b"});
}

TEST_CASE("a command without a slash is looked for in the PATH, in its order") {
    CHECK(candidates("a", {"PATH=/x:/y/z"}) == strings{"/x/a", "/y/z/a"});
    CHECK(candidates("a", {"PATH=/x/"}) == strings{"/x//a"});
    CHECK(candidates("a", {"PATH=/"}) == strings{"//a"});
    CHECK(candidates("..", {"PATH=/x"}) == strings{"/x/.."});  // a directory: EACCES
    // Relative and empty entries would depend on the working directory.
    CHECK(candidates("a", {"PATH=:/x::.:bin:/y:"}) == strings{"/x/a", "/y/a"});
    CHECK(candidates("a", {"PATH="}).empty());
    CHECK(candidates("a", {"XPATH=/x", "PATHS=/y"}).front() == "/usr/local/sbin/a");
    CHECK(candidates("a", {}).back() == "/bin/a");
    CHECK(candidates("a", {"PATH=/x", "PATH=/y"}) == strings{"/y/a"});
}
