#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <filesystem>
#include <functional>
#include <string>

#include <kumiki/container/child.hpp>
#include <kumiki/container/plan.hpp>
#include <kumiki/container/spawn_job.hpp>
#include <kumiki/container/spawner.hpp>
#include <kumiki/sys/file.hpp>
#include <kumiki/sys/pidfd.hpp>

#include "support/busybox.hpp"
#include "support/catch.hpp"

using namespace kumiki;
namespace fs = std::filesystem;

namespace {

/// Carries out a plan in a child, in the way asked for, and gives the child's exit status.
int carry_out(plan& made, bool shared) {
    detail::spawn_job job;
    job.shared_memory = shared;
    job.program = made.finish();
    detail::spawner::shared().submit(job);
    detail::spawner::shared().wait(job);
    REQUIRE(job.error == 0);
    const unique_fd pidfd(job.pidfd);
    return sys::wait_blocking(pidfd.get()).shell_status();
}

bool is_shared() { return GENERATE(false, true); }

}  // namespace

TEST_CASE("a step's result is the argument of a later step") {
    plan made;
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const unique_fd in(ends[0]);
    const unique_fd out(ends[1]);
    const slot copy = made.new_slot();
    made.call("dup", SYS_dup, {made.keep(out.get())}).into(copy);
    made.call("write", SYS_write, {copy, made.text("hello"), 5});
    made.call("exit", SYS_exit_group, {7});
    CHECK(carry_out(made, is_shared()) == 7);
    char text[6] = {};
    CHECK(::read(in.get(), text, 5) == 5);
    CHECK(std::string(text) == "hello");
}

TEST_CASE("a step that fails ends the child and is in its report") {
    plan made;
    made.begin(phase::root);
    made.call("fine", SYS_umask, {0});
    made.begin(phase::proc);
    made.call("/nowhere", SYS_chdir, {made.text("/nowhere/at/all")});
    made.call("never", SYS_exit_group, {0});
    CHECK(carry_out(made, is_shared()) == child_failed_status);
    CHECK(made.report().step == 2);
    CHECK(made.report().error == ENOENT);
    CHECK(made.shown(2) == "/nowhere");
    CHECK(made.report().began != 0);
    CHECK(made.report().phase_end[static_cast<std::size_t>(phase::root)] >= made.report().began);
    CHECK(made.report().phase_end[static_cast<std::size_t>(phase::proc)] == 0);
}

TEST_CASE("a tolerated error leaves out as many steps as it says") {
    plan made;
    made.call("gone", SYS_chdir, {made.text("/nowhere/at/all")});
    made.tolerate(ENOENT, 2);
    made.call("left out", SYS_exit_group, {1});
    made.call("left out", SYS_exit_group, {2});
    made.call("reached", SYS_exit_group, {3});
    CHECK(carry_out(made, is_shared()) == 3);
}

TEST_CASE("another error than the tolerated one is a failure") {
    plan made;
    made.call("a file", SYS_chdir, {made.text("/dev/null")});
    made.tolerate(ENOENT, 1);
    made.call("exit", SYS_exit_group, {0});
    CHECK(carry_out(made, is_shared()) == child_failed_status);
    CHECK(made.report().error == ENOTDIR);
}

TEST_CASE("the child has no descriptor but the standard and the kept ones") {
    plan made;
    int ends[2];
    REQUIRE(::pipe2(ends, 0) == 0);
    const unique_fd a(ends[0]);
    const unique_fd b(ends[1]);
    made.keep(b.get());
    made.call("the kept one", SYS_fcntl, {b.get(), F_GETFD});
    made.call("the closed one", SYS_fcntl, {a.get(), F_GETFD});
    CHECK(carry_out(made, is_shared()) == child_failed_status);
    CHECK(made.report().step == 2);
    CHECK(made.report().error == EBADF);
    CHECK(::fcntl(a.get(), F_GETFD) >= 0);  // the supervisor's own is untouched
}

namespace {

/// Makes `path` below `root` by make_path; the report says how it went.
child_report make_path(const std::string& root, const std::string& path, path_walk walk,
                       bool shared) {
    plan made;
    const unique_fd directory = sys::open_at(AT_FDCWD, root, O_PATH | O_DIRECTORY);
    walk.path = made.text(path);
    walk.scratch = const_cast<char*>(made.text(path));
    made.special(step_kind::make_path, "the path", {made.keep(directory.get()), made.object(walk)});
    made.call("exit", SYS_exit_group, {0});
    carry_out(made, shared);
    return made.report();
}

}  // namespace

TEST_CASE("make_path makes what is missing, directory by directory") {
    const kumiki_test::temporary_directory root;
    const bool shared = is_shared();
    CHECK(make_path(root.path(), "a/b/c", {.directory = true}, shared).error == 0);
    CHECK(fs::is_directory(root.path() + "/a/b/c"));
    CHECK(make_path(root.path(), "a/b/file", {.directory = false}, shared).error == 0);
    CHECK(fs::is_regular_file(root.path() + "/a/b/file"));
    CHECK(make_path(root.path(), "a/b/file", {.directory = false}, shared).error == 0);
}

TEST_CASE("make_path does not follow a symbolic link unless it is told to") {
    const kumiki_test::temporary_directory root;
    const kumiki_test::temporary_directory outside;
    const bool shared = is_shared();
    fs::create_directory(root.path() + "/real");
    fs::create_symlink(outside.path(), root.path() + "/absolute");
    fs::create_symlink("../../../../../.." + outside.path(), root.path() + "/climbing");
    fs::create_symlink("real", root.path() + "/inner");
    fs::create_symlink("loop", root.path() + "/loop");
    for (const char* path : {"absolute/x", "climbing/x", "inner/x", "loop/x", "absolute"}) {
        CAPTURE(path);
        CHECK(make_path(root.path(), path, {.directory = true}, shared).error == ELOOP);
    }
    // Followed links stay inside: what they name is looked for, and made, below the root.
    CHECK(make_path(root.path(), "inner/x", {.directory = true, .follow = true}, shared).error ==
          0);
    CHECK(fs::is_directory(root.path() + "/real/x"));
    for (const char* path : {"absolute/y", "climbing/y"}) {
        CAPTURE(path);
        const auto report =
            make_path(root.path(), path, {.directory = true, .follow = true}, shared);
        CHECK(report.error != 0);  // a dangling link, seen from inside
    }
    CHECK(fs::is_empty(outside.path()));
}

TEST_CASE("make_path does not climb out of the root") {
    const kumiki_test::temporary_directory root;
    CHECK(make_path(root.path(), "../x", {.directory = true}, is_shared()).error == EXDEV);
}

TEST_CASE("a child that waits goes on with a byte, and gives up without one") {
    const bool shared = is_shared();
    plan made;
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    unique_fd own(ends[0]);
    const unique_fd child(ends[1]);
    made.keep(child.get());
    SECTION("with a byte") {
        REQUIRE(::send(own.get(), "g", 1, 0) == 1);
        made.special(step_kind::await_byte, "go", {child.get(), 10000});
        made.call("exit", SYS_exit_group, {5});
        CHECK(carry_out(made, shared) == 5);
    }
    SECTION("when the time is over") {
        made.special(step_kind::await_byte, "go", {child.get(), 20});
        made.call("exit", SYS_exit_group, {5});
        CHECK(carry_out(made, shared) == child_failed_status);
        CHECK(made.report().error == ETIMEDOUT);
    }
    SECTION("when the supervisor is gone") {
        own.reset();
        made.special(step_kind::await_byte, "go", {child.get(), 10000});
        made.call("exit", SYS_exit_group, {5});
        CHECK(carry_out(made, shared) == child_failed_status);
        CHECK(made.report().error == ECANCELED);
    }
}

namespace {

/// Compares a file that holds `content` with `wanted`; yields the errno of the step.
int verify_text(const std::string& content, const std::string& wanted, bool shared) {
    const kumiki_test::temporary_directory place;
    kumiki_test::write_text(place.path() + "/label", content);
    const unique_fd file = sys::open_at(AT_FDCWD, place.path() + "/label", O_RDONLY);
    plan made;
    made.special(step_kind::verify_text, "the label",
                 {made.keep(file.get()), made.text(wanted), wanted.size()});
    made.call("exit", SYS_exit_group, {0});
    const int status = carry_out(made, shared);
    CHECK(status == (made.report().error == 0 ? 0 : child_failed_status));
    return made.report().error;
}

}  // namespace

TEST_CASE("verify_text takes the text alone, or with what the kernel adds to a label") {
    const bool shared = is_shared();
    for (const std::string& content :
         {std::string("web"), std::string("web\n"), std::string("web (enforce)\n"),
          std::string("web\0", 4), std::string("web\0x", 5)}) {
        CAPTURE(content);
        CHECK(verify_text(content, "web", shared) == 0);
    }
    for (const std::string& content :
         {std::string(), std::string("we"), std::string("wet"), std::string("webs"),
          std::string("web2 (enforce)\n"), std::string("xweb"), std::string("exec web"),
          std::string("\nweb"), std::string("we\0b", 4), std::string("web,\n")}) {
        CAPTURE(content);
        CHECK(verify_text(content, "web", shared) == EBADMSG);
    }
}

TEST_CASE("verify_text compares a long text to its end") {
    const bool shared = is_shared();
    for (const std::size_t size : {127U, 128U, 129U, 4095U}) {
        const std::string label(size, 'x');
        CHECK(verify_text(label + " (kill)\n", label, shared) == 0);
        CHECK(verify_text(label, label, shared) == 0);
        CHECK(verify_text(label.substr(1), label, shared) == EBADMSG);
        CHECK(verify_text(label + "x", label, shared) == EBADMSG);
        CHECK(verify_text(label.substr(1) + "y", label, shared) == EBADMSG);
    }
}

TEST_CASE("verify_text of what cannot be read is the error of the read") {
    plan made;
    const unique_fd directory = sys::open_at(AT_FDCWD, "/tmp", O_RDONLY);
    made.special(step_kind::verify_text, "a directory",
                 {made.keep(directory.get()), made.text("x"), 1});
    CHECK(carry_out(made, is_shared()) == child_failed_status);
    CHECK(made.report().error == EISDIR);
}

TEST_CASE(
    "exec takes the first candidate that can be executed and tells the error that says most") {
    const kumiki_test::busybox_root root;
    const bool shared = is_shared();
    const auto run = [&](const std::vector<std::string>& candidates) {
        plan made;
        made.special(step_kind::exec, "command",
                     {made.object(exec_candidates{.paths = made.strings(candidates),
                                                  .arguments = made.strings({"true"}),
                                                  .environment = made.strings({})})});
        const int status = carry_out(made, shared);
        return std::pair(status, made.report().error);
    };
    const std::string program = root.path() + "/bin/true";
    const std::string plain = root.path() + "/etc/passwd";
    kumiki_test::write_text(root.path() + "/noise", "no program\n");
    ::chmod((root.path() + "/noise").c_str(), 0755);
    CHECK(run({"/nowhere", plain + "/below", program}) == std::pair(0, 0));
    CHECK(run({"/nowhere"}) == std::pair(child_failed_status, ENOENT));
    CHECK(run({}) == std::pair(child_failed_status, ENOENT));
    CHECK(run({plain, "/nowhere"}) == std::pair(child_failed_status, EACCES));
    CHECK(run({root.path() + "/noise"}) == std::pair(child_failed_status, ENOEXEC));
}
