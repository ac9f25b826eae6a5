#include <sys/syscall.h>

#include <cstring>
#include <string>
#include <vector>

#include <kumiki/container/plan.hpp>
#include <kumiki/container/plan_text.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("text in a plan stays where it is while the plan grows and is moved") {
    plan first;
    std::vector<const char*> texts;
    for (int i = 0; i < 2000; ++i) texts.push_back(first.text("text " + std::to_string(i)));
    const char* large = first.text(std::string(100000, 'x'));
    const plan second = std::move(first);
    for (int i = 0; i < 2000; ++i)
        CHECK(texts[static_cast<std::size_t>(i)] == "text " + std::to_string(i));
    CHECK(std::strlen(large) == 100000);
}

TEST_CASE("objects in a plan are aligned for their type") {
    plan made;
    for (int i = 0; i < 100; ++i) {
        made.text(std::string(static_cast<std::size_t>(i), 'a'));
        CHECK(reinterpret_cast<std::uintptr_t>(made.object(std::uint64_t{7})) % 8 == 0);
    }
}

TEST_CASE("a list of strings ends with a null pointer, also an empty one") {
    plan made;
    const char* const* list = made.strings({"a", "", "c"});
    CHECK(std::string(list[0]) == "a");
    CHECK(std::string(list[1]).empty());
    CHECK(std::string(list[2]) == "c");
    CHECK(list[3] == nullptr);
    CHECK(made.strings({})[0] == nullptr);
}

TEST_CASE("a plan has only so many slots and says so") {
    plan made;
    for (std::size_t i = 0; i < slot_count; ++i) made.new_slot();
    CHECK_THROWS_AS(made.new_slot(), error);
}

TEST_CASE("closing what is not kept is the first step, with the kept descriptors ascending") {
    plan made;
    made.begin(phase::exec);
    made.keep(9);
    made.keep(4);
    made.keep(9);
    made.call("x", SYS_chdir, {made.text("/")});
    const child_program* program = made.finish();
    REQUIRE(program->count == 2);
    CHECK(program->steps[0].kind == step_kind::close_others);
    CHECK(program->steps[0].in == phase::descriptors);
    const int* kept = reinterpret_cast<const int*>(program->steps[0].arguments[0]);
    CHECK(program->steps[0].arguments[1] == 2);
    CHECK(kept[0] == 4);
    CHECK(kept[1] == 9);
    CHECK(program->steps[1].in == phase::exec);
    CHECK(made.shown(1) == "x");
}

TEST_CASE("a plan can be read as text") {
    plan made;
    const slot fd = made.new_slot();
    made.begin(phase::dev);
    made.call("the place", SYS_openat, {-100, made.text("/a b"), 5}).into(fd);
    made.call("it", SYS_ioctl, {fd, 7, made.object(1)});
    CHECK(to_string(made, 0) == "dev: openat(-100, \"/a b\", 5) -> $0  # the place");
    CHECK(to_string(made, 1) == "dev: ioctl($0, 7, &)  # it");
}

TEST_CASE("every phase has a name of its own") {
    for (std::size_t i = 0; i < phase_count; ++i)
        for (std::size_t j = 0; j < i; ++j)
            CHECK(std::string(name_of(static_cast<phase>(i))) != name_of(static_cast<phase>(j)));
}
