#include <string>

#include <kumiki/cgroup/controller.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("the kernel's lists of controllers are read, and unknown ones skipped") {
    CHECK(parse_controllers("cpuset cpu io memory hugetlb pids rdma misc dmem\n") ==
          (controllers::cpuset | controllers::cpu | controllers::io | controllers::memory |
           controllers::hugetlb | controllers::pids | controllers::rdma | controllers::misc |
           controllers::dmem));
    CHECK(parse_controllers("") == controllers::none);
    CHECK(parse_controllers("\n") == controllers::none);
    CHECK(parse_controllers("cpus newthing pids") == controllers::pids);
}

TEST_CASE("a set of controllers prints as the kernel writes it") {
    CHECK(to_string(controllers::pids | controllers::memory) == "memory pids");
    CHECK(to_string(controllers::none).empty());
}

TEST_CASE("a control file belongs to the controller before its dot") {
    CHECK(controller_of("memory.max") == controllers::memory);
    CHECK(controller_of("hugetlb.2MB.max") == controllers::hugetlb);
    CHECK(controller_of("cgroup.procs") == controllers::none);
    CHECK(controller_of("memoryx.max") == controllers::none);
    CHECK(controller_of("memory") == controllers::none);
    CHECK(controller_of("") == controllers::none);
}
