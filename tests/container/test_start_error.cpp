#include <sys/syscall.h>

#include <string>

#include <kumiki/container/start_error.hpp>

#include "support/catch.hpp"

using namespace kumiki;

namespace {

/// The error of a plan whose only step, in phase `in` on `shown`, failed with `code`.
start_error failed(phase in, std::string_view shown, int code) {
    plan made;
    made.begin(in);
    made.call(shown, SYS_chdir, {made.text("/x")});
    child_report report;
    report.step = 0;
    report.error = code;
    return detail::error_of_step(made, report, "web");
}

std::string message(phase in, std::string_view shown, int code) {
    return failed(in, shown, code).what();
}

}  // namespace

TEST_CASE("a failed step is named with its object, its errno and its container") {
    const auto failure = failed(phase::proc, "proc on /proc", EPERM);
    CHECK(failure.errno_value() == EPERM);
    CHECK(failure.step() == "proc");
    CHECK(failure.object() == "proc on /proc");
    CHECK(failure.context().container == "web");
    CHECK(std::string(failure.what()) ==
          "set up proc on /proc (step proc, container web): EPERM (Operation not permitted)");
}

TEST_CASE("the exit status is the one that people know") {
    CHECK(failed(phase::exec, "sh", ENOENT).exit_status() == 127);
    CHECK(failed(phase::exec, "a/b", ENOTDIR).exit_status() == 127);
    for (const int code : {EACCES, ENOEXEC, EPERM, ELOOP, ENOMEM}) {
        CAPTURE(code);
        CHECK(failed(phase::exec, "sh", code).exit_status() == 126);
    }
    CHECK(failed(phase::root, "the root", ENOENT).exit_status() == 125);
    CHECK(exit_status_of(failed(phase::exec, "sh", ENOENT)) == 127);
    CHECK(exit_status_of(error(ENOENT, {})) == 125);
    CHECK(exit_status_of(invalid_input("a", "b", "c")) == 125);
}

TEST_CASE("what can be done about it is said where it is known") {
    struct known {
        phase in;
        const char* object;
        int code;
        const char* words;
    };
    for (const auto& [in, object, code, words] :
         {known{phase::exec, "sh", ENOENT, "not in the root filesystem"},
          known{phase::exec, "sh", EACCES, "not executable"},
          known{phase::exec, "sh", EACCES, "Landlock"},
          known{phase::exec, "sh", ENOEXEC, "not a program of this machine"},
          known{phase::landlock, "/srv", ENOENT, "does not exist in the root filesystem"},
          known{phase::landlock, "/a/b", ENOTDIR, "does not exist in the root filesystem"},
          known{phase::landlock, "/srv", EINVAL, "only directories have these rights"},
          known{phase::landlock, "/proc/1/root", ELOOP, "symbolic link"},
          known{phase::identity, "the Landlock rules", E2BIG, "at most 16"},
          known{phase::session, "AppArmor label web", EBADMSG, "another label"},
          known{phase::session, "AppArmor label web", ENOENT, "No profile of this name"},
          known{phase::descriptors, "SELinux label a:b:c", EINVAL, "no such context"},
          known{phase::network, "the supervisor's go", ETIMEDOUT, "in time"},
          known{phase::limits, "/work", ENOENT, "working directory"},
          known{phase::proc, "proc on /proc", ELOOP, "symbolic link"},
          known{phase::mounts, "/etc/hosts", EXDEV, "symbolic link"},
          known{phase::mounts, "mount on /x", EROFS, "read-only"},
          known{phase::dev, "mqueue on /dev/mqueue", ENODEV, "load its module"},
          known{phase::root, "the staging tmpfs", ENOSYS, "5.12"},
          known{phase::root, "the staging tmpfs", EPERM, "CAP_SYS_ADMIN"}}) {
        CAPTURE(object);
        CAPTURE(code);
        CHECK(message(in, object, code).find(words) != std::string::npos);
    }
    CHECK(failed(phase::limits, "rlimit nofile", EPERM).remedy().empty());
    CHECK(failed(phase::pivot, "the new root", EXDEV).remedy().empty());
}

TEST_CASE("a clone that failed says what stands against it") {
    const auto words = [](int code, namespace_kind kinds) {
        return std::string(detail::error_of_clone(code, kinds, "web").what());
    };
    CHECK(words(ENOSYS, namespace_kind::mount).find("5.7") != std::string::npos);
    CHECK(words(EBUSY, namespace_kind::mount).find("cgroup") != std::string::npos);
    CHECK(words(EAGAIN, namespace_kind::mount).find("pids.max") != std::string::npos);
    const auto failure = detail::error_of_clone(EPERM, namespace_kind::user, "web");
    CHECK(failure.exit_status() == 125);
    CHECK(failure.step() == "clone");
    CHECK(failure.errno_value() == EPERM);
}

TEST_CASE("a child that was ended from outside is an error that names the signal and the phase") {
    plan made;
    made.begin(phase::dev);
    made.call("x", SYS_chdir, {made.text("/x")});
    child_report report;
    const auto words = [&](std::optional<sys::exit_status> status) {
        return std::string(detail::error_of_death(report, made, status, "web").what());
    };
    CHECK(words(std::nullopt).find("its first step") != std::string::npos);
    report.step = 0;
    const auto killed = words(sys::exit_status{.signal = SIGKILL});
    CHECK(killed.find("step dev") != std::string::npos);
    CHECK(killed.find("signal 9 (was it out of memory?)") != std::string::npos);
    CHECK(words(sys::exit_status{.signal = SIGTERM}).find("signal 15 before") != std::string::npos);
    CHECK(words(sys::exit_status{.code = 1}).find("The child ended before") != std::string::npos);
}
