#include <algorithm>

#include <kumiki/cgroup/huge_pages.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

using namespace kumiki;
using namespace kumiki::literals;

TEST_CASE("a size of huge pages is read from its directory's name") {
    CHECK(detail::parse_huge_page_directory("hugepages-2048kB") == 2_MiB);
    CHECK(detail::parse_huge_page_directory("hugepages-1048576kB") == 1_GiB);
    CHECK(detail::parse_huge_page_directory("hugepages-64kB") == 64_KiB);
    for (const char* none :
         {"", ".", "hugepages-", "hugepages-kB", "hugepages-3kB", "hugepages-0kB", "hugepages-2048",
          "2048kB", "hugepages-99999999999kB"})
        CHECK(detail::parse_huge_page_directory(none) == 0_B);
}

TEST_CASE("the files of a size are named as the kernel names them") {
    CHECK(detail::huge_page_file(2_MiB, "events") == "hugetlb.2MB.events");
    CHECK(detail::huge_page_file(16_GiB, "current") == "hugetlb.16GB.current");
    CHECK(detail::huge_page_file(64_KiB, "max") == "hugetlb.64KB.max");
    CHECK(detail::huge_page_file(512_MiB, "max") == "hugetlb.512MB.max");
}

TEST_CASE("each size of this kernel has its file in a group with the hugetlb controller") {
    if (const auto why = kumiki_test::missing(controllers::hugetlb); !why.empty()) KUMIKI_SKIP(why);
    auto root = kumiki_test::make_root();
    const auto group = root.create("huge", {.hugetlb = {{huge_page_sizes().at(0), 1_GiB}}});
    std::size_t there = 0;
    for (const auto& name : kumiki_test::names_in(group.path()))
        there += name.starts_with("hugetlb.") && name.ends_with(".max") &&
                 name.find(".rsvd.") == std::string::npos;
    CHECK(huge_page_sizes().size() == there);
    for (const bytes size : huge_page_sizes())
        CHECK(group.try_read(detail::huge_page_file(size, "current")) == "0\n");
}
