#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <vector>

#include <kumiki/cgroup/device_filter.hpp>

#include "cgroup/fixture.hpp"
#include "support/catch.hpp"
#include "support/scratch.hpp"

using namespace kumiki;
using may = device_access;
using enum device_kind;
using kumiki_test::child;

namespace {

/// Why this host has no device lists; empty when it has.
std::string without_device_lists() {
    if (const auto why = kumiki_test::missing(); !why.empty()) return why;
    try {
        auto root = kumiki_test::make_root();
        set_devices(root.create("probe"), device_list::allow_all());
        return {};
    } catch (const unsupported& failure) {
        return failure.what();
    } catch (const error& failure) {
        return failure.errno_value() == EPERM ? failure.what() : "";
    }
}
#define NEED_DEVICE_LISTS()                                                                        \
    if (const auto why = without_device_lists(); !why.empty()) KUMIKI_SKIP(why)

struct attempt {
    const char* path = nullptr;
    int flags = 0;
};

/// The errno value of opening a file in a child that is born in the group; 0 when it opens.
int open_in(const cgroup& group, const char* path, int flags) {
    attempt wanted{path, flags};
    child opener(
        group,
        [](void* given) {
            const auto& open = *static_cast<const attempt*>(given);
            const int fd = ::open(open.path, open.flags | O_CLOEXEC);
            ::_exit(fd < 0 ? errno : 0);
        },
        &wanted);
    REQUIRE(opener.pid() > 0);
    return opener.wait().code;
}

}  // namespace

TEST_CASE("a device list decides what a group's processes open") {
    NEED_DEVICE_LISTS();
    auto root = kumiki_test::make_root();
    const auto group = root.create("devices");
    const auto below = cgroup::create(group, "below");
    CHECK_FALSE(has_devices(group));
    set_devices(group, device_list::deny_all().allow("/dev/null").allow("/dev/zero", may::read));
    CHECK(has_devices(group));
    for (const auto* each : {&group, &below}) {
        CHECK(open_in(*each, "/dev/null", O_RDWR) == 0);
        CHECK(open_in(*each, "/dev/zero", O_RDONLY) == 0);
        CHECK(open_in(*each, "/dev/zero", O_RDWR) == EPERM);
        CHECK(open_in(*each, "/dev/full", O_RDONLY) == EPERM);
        CHECK(open_in(*each, "/proc/self/stat", O_RDONLY) == 0);
    }
    // A group below can deny more, and allow nothing that is denied above.
    set_devices(below, device_list::allow_all().deny("/dev/null"));
    CHECK(open_in(below, "/dev/null", O_RDONLY) == EPERM);
    CHECK(open_in(below, "/dev/full", O_RDONLY) == EPERM);
    CHECK(open_in(below, "/dev/zero", O_RDONLY) == 0);
    CHECK(open_in(group, "/dev/null", O_RDONLY) == 0);
    CHECK(clear_devices(group));
    CHECK_FALSE(clear_devices(group));
    CHECK(open_in(group, "/dev/full", O_RDONLY) == 0);
    CHECK(open_in(below, "/dev/full", O_RDONLY) == 0);
    CHECK(open_in(below, "/dev/null", O_RDONLY) == EPERM);
    // Outside nothing has changed.
    CHECK(unique_fd(::open("/dev/full", O_RDONLY | O_CLOEXEC)).get() >= 0);
}

TEST_CASE("making a node and opening it is denied by the default list") {
    NEED_DEVICE_LISTS();
    const kumiki_test::scratch place;
    auto root = kumiki_test::make_root();
    const auto group = root.create("mknod");
    const std::string made = place.path() + "/kmsg";
    const std::string null = place.path() + "/null";
    set_devices(group, device_list::container_default());
    const auto make = [&](const std::string& path, unsigned minor) {
        struct request {
            const char* path;
            unsigned minor;
        } wanted{path.c_str(), minor};
        child maker(
            group,
            [](void* given) {
                const auto& asked = *static_cast<const request*>(given);
                ::_exit(::mknod(asked.path, S_IFCHR | 0600, makedev(1, asked.minor)) == 0 ? 0
                                                                                          : errno);
            },
            &wanted);
        REQUIRE(maker.pid() > 0);
        return maker.wait().code;
    };
    if (const int code = make(made, 11); code != 0)
        KUMIKI_SKIP("no device nodes can be made here: " + errno_name(code));
    CHECK(open_in(group, made.c_str(), O_RDONLY) == EPERM);
    REQUIRE(make(null, 3) == 0);
    const int plain = unique_fd(::open(null.c_str(), O_RDWR | O_CLOEXEC)).get() >= 0 ? 0 : errno;
    CHECK(open_in(group, null.c_str(), O_RDWR) == plain);  // EACCES on a mount with nodev
    set_devices(group, device_list::deny_all());
    ::unlink(made.c_str());
    CHECK(make(made, 11) == EPERM);
}

TEST_CASE("a list is replaced in one step: nobody meets the moment between two") {
    NEED_DEVICE_LISTS();
    auto root = kumiki_test::make_root();
    const auto group = root.create("replace");
    const auto first = device_list::deny_all().allow("/dev/null");
    const auto second = device_list::deny_all().allow("/dev/null").allow("/dev/full");
    set_devices(group, first);
    struct shared {
        std::atomic<long> rounds{0};
        std::atomic<long> wrong{0};
    };
    void* const page =
        ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(page != MAP_FAILED);
    auto* const seen = new (page) shared;
    {
        child opener(
            group,
            [](void* given) {
                ::prctl(PR_SET_PDEATHSIG, SIGKILL);
                auto& told = *static_cast<shared*>(given);
                for (;; ++told.rounds) {
                    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
                    const int zero = ::open("/dev/zero", O_RDWR | O_CLOEXEC);
                    if (null < 0 || zero >= 0) ++told.wrong;
                    ::close(null);
                    ::close(zero);
                }
            },
            seen);
        REQUIRE(opener.pid() > 0);
        REQUIRE(kumiki_test::eventually([&] { return seen->rounds > 10; }));
        const auto directory = detail::readable_directory(group);
        for (int round = 0; round < 300; ++round) {
            set_devices(group, round % 2 == 0 ? second : first);
            if (round % 50 == 0)
                CHECK(sys::attached_ebpf(directory.get(), BPF_CGROUP_DEVICE).size() == 1);
        }
    }
    CHECK(seen->rounds > 10);
    CHECK(seen->wrong == 0);
    ::munmap(page, 4096);
}

TEST_CASE("a list of a thousand rules is taken, and the program of others is left alone") {
    NEED_DEVICE_LISTS();
    auto root = kumiki_test::make_root();
    const auto group = root.create("thousand");
    const auto directory = detail::readable_directory(group);
    const auto foreign = sys::load_ebpf(BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE, "somebody",
                                        device_list::allow_all().deny("/dev/full").compile());
    CHECK(sys::attach_ebpf(directory.get(), foreign.get(), BPF_CGROUP_DEVICE));
    CHECK_FALSE(has_devices(group));
    auto list = device_list::deny_all();
    for (std::uint32_t minor = 0; minor < 1000; ++minor)
        list = std::move(list).allow(block, 250, minor, minor % 2 == 0 ? may::read : may::write);
    list = std::move(list).allow("/dev/null").allow("/dev/full");
    set_devices(group, list);
    set_devices(group, list);
    CHECK(sys::attached_ebpf(directory.get(), BPF_CGROUP_DEVICE).size() == 2);
    CHECK(open_in(group, "/dev/null", O_RDWR) == 0);
    CHECK(open_in(group, "/dev/zero", O_RDWR) == EPERM);
    CHECK(open_in(group, "/dev/full", O_RDWR) == EPERM);
    CHECK(clear_devices(group));
    CHECK(sys::attached_ebpf(directory.get(), BPF_CGROUP_DEVICE).size() == 1);
    CHECK(sys::detach_ebpf(directory.get(), foreign.get(), BPF_CGROUP_DEVICE));
    CHECK_FALSE(sys::detach_ebpf(directory.get(), foreign.get(), BPF_CGROUP_DEVICE));
}

TEST_CASE("a full group and a removed one are errors with the group's name") {
    NEED_DEVICE_LISTS();
    auto root = kumiki_test::make_root();
    auto group = root.create("full");
    const auto directory = detail::readable_directory(group);
    std::vector<unique_fd> programs;
    for (int i = 0; i < 64; ++i) {
        programs.push_back(sys::load_ebpf(BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE, "other",
                                          device_list::allow_all().compile()));
        REQUIRE(sys::attach_ebpf(directory.get(), programs.back().get(), BPF_CGROUP_DEVICE));
    }
    try {
        set_devices(group, device_list::deny_all());
        FAIL("no error");
    } catch (const error& failure) {
        CHECK(failure.errno_value() == E2BIG);
        CHECK(failure.object() == group.path());
        CHECK(failure.remedy().find("64") != std::string::npos);
    }
    const auto gone = cgroup::open(group.path());
    REQUIRE(group.try_remove());
    CHECK_THROWS_AS(set_devices(gone, device_list::deny_all()), error);
}
