#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <kumiki/security/labels.hpp>

#include "support/busybox.hpp"
#include "support/catch.hpp"

using namespace kumiki;
using kumiki_test::temporary_directory;
using kumiki_test::write_text;

namespace {

/// A place with the files of /sys and /proc that tell of a kernel's labels.
class made_kernel : public temporary_directory {
  public:
    made_kernel() { directory_ = sys::open_at(AT_FDCWD, path(), O_PATH | O_DIRECTORY); }
    made_kernel& with(const std::string& file, const std::string& text) {
        std::filesystem::create_directories(
            std::filesystem::path(path() + "/" + file).parent_path());
        write_text(path() + "/" + file, text);
        return *this;
    }
    int root() const { return directory_.get(); }
    bool has(label_kind kind) const { return has_labels(kind, root()); }

  private:
    unique_fd directory_;
};

constexpr auto apparmor = label_kind::apparmor;
constexpr auto selinux = label_kind::selinux;

template <class Refusal>
std::string refusal(label_kind kind, const std::string& label, int root) {
    try {
        require_label(kind, label, root);
    } catch (const Refusal& failure) {
        return failure.what();
    }
    return {};
}

}  // namespace

TEST_CASE("a kernel has the labels whose module is in its list") {
    const std::string list = "sys/kernel/security/lsm";
    const auto kernel_with = [&](const std::string& modules) {
        made_kernel kernel;
        kernel.with(list, modules);
        return std::pair(kernel.has(apparmor), kernel.has(selinux));
    };
    CHECK(kernel_with("lockdown,capability,landlock,yama,apparmor") == std::pair(true, false));
    CHECK(kernel_with("capability,selinux,bpf\n") == std::pair(false, true));
    CHECK(kernel_with("capability,selinux,apparmor") == std::pair(true, true));
    CHECK(kernel_with("capability,landlock") == std::pair(false, false));
    CHECK(kernel_with("") == std::pair(false, false));
    CHECK(kernel_with("apparmor2,myselinux,selinux-x") == std::pair(false, false));
}

TEST_CASE("without the list, AppArmor's own parameter and the filesystems tell") {
    made_kernel kernel;
    CHECK_FALSE(kernel.has(apparmor));
    CHECK_FALSE(kernel.has(selinux));
    const std::string parameter = "sys/module/apparmor/parameters/enabled";
    CHECK_FALSE(kernel.with(parameter, "N\n").has(apparmor));
    CHECK_FALSE(kernel.with(parameter, "").has(apparmor));
    CHECK(kernel.with(parameter, "Y\n").has(apparmor));
    const std::string filesystems = "proc/filesystems";
    CHECK_FALSE(kernel.with(filesystems, "nodev\tsysfs\n\text4\n").has(selinux));
    CHECK(kernel.with(filesystems, "nodev\tsysfs\nnodev\tselinuxfs\n\text4\n").has(selinux));
    // The list counts where it is.
    kernel.with("sys/kernel/security/lsm", "capability");
    CHECK_FALSE(kernel.has(apparmor));
    CHECK_FALSE(kernel.has(selinux));
}

TEST_CASE("what is said of this kernel is what it says itself") {
    std::vector<std::uint64_t> modules(64);
    auto size = static_cast<std::uint32_t>(modules.size() * sizeof modules[0]);
    const long count = ::syscall(461 /* lsm_list_modules, 6.8 */, modules.data(), &size, 0);
    if (count < 0) KUMIKI_SKIP("this kernel does not list its security modules");
    modules.resize(static_cast<std::size_t>(count));
    const auto listed = [&](std::uint64_t number) {
        return std::ranges::find(modules, number) != modules.end();
    };
    CHECK(listed(100 /* LSM_ID_CAPABILITY */));
    CHECK(has_labels(apparmor) == listed(104 /* LSM_ID_APPARMOR */));
    CHECK(has_labels(selinux) == listed(101 /* LSM_ID_SELINUX */));
}

TEST_CASE("a label that the kernel would not heed is an error that says so") {
    made_kernel kernel;
    kernel.with("sys/kernel/security/lsm", "capability,apparmor");
    CHECK(refusal<error>(apparmor, "docker-default", kernel.root()).empty());
    const auto why =
        refusal<unsupported>(selinux, "system_u:system_r:container_t:s0", kernel.root());
    INFO(why);
    CHECK(why.find("SELinux is not active") != std::string::npos);
    CHECK(why.find("container_t") != std::string::npos);
    kernel.with("sys/kernel/security/lsm", "capability,selinux");
    CHECK(refusal<error>(selinux, "system_u:system_r:container_t:s0:c1,c2", kernel.root()).empty());
    CHECK(refusal<unsupported>(apparmor, "docker-default", kernel.root())
              .find("AppArmor is not active") != std::string::npos);
}

TEST_CASE("text that is no label is refused") {
    made_kernel kernel;
    kernel.with("sys/kernel/security/lsm", "selinux,apparmor");
    const auto kind = GENERATE(apparmor, selinux);
    for (const std::string& label :
         {std::string(), std::string(" "), std::string(" web"), std::string("web "),
          std::string("web\n"), std::string("we\nb"), std::string("we\x1b[mb"),
          std::string("we\0b", 4), std::string("web\x7f"), std::string(4096, 'x')}) {
        CAPTURE(label);
        CHECK_FALSE(refusal<invalid_input>(kind, label, kernel.root()).empty());
    }
    for (const std::string& label :
         {std::string("unconfined"), std::string("a profile with blanks"), std::string("/bin/x"),
          std::string("a//&:ns:b"), std::string("\xc3\xa9t\xc3\xa9"), std::string(4095, 'x')}) {
        CAPTURE(label);
        CHECK(refusal<error>(kind, label, kernel.root()).empty());
    }
}

TEST_CASE("a label is written to the file of its module, and shown there without the command") {
    made_kernel kernel;
    const auto older = detail::prepare_label(apparmor, "web", kernel.root());
    CHECK(older.file == "thread-self/attr/exec");
    CHECK(older.text == "exec web");
    CHECK(older.shown == "web");
    kernel.with("proc/thread-self/attr/apparmor/exec", "");
    CHECK(detail::prepare_label(apparmor, "web", kernel.root()).file ==
          "thread-self/attr/apparmor/exec");
    const auto context = detail::prepare_label(selinux, "a:b:c:s0", kernel.root());
    CHECK(context.file == "thread-self/attr/exec");
    CHECK(context.text == "a:b:c:s0");
    CHECK(context.shown == "a:b:c:s0");
}
