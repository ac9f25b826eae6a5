// full_container: a container from the command line, or a demonstration of one. See --help.

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <string>

#include <fmt/format.h>

#include <kumiki/container/start_error.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/version.hpp>

#include "demonstration.hpp"
#include "options.hpp"
#include "tool.hpp"

namespace {

constexpr int status_not_started = 125;

void complain(std::string text) {
    std::ranges::replace(text, '\n', ' ');
    fmt::print(stderr, "kumiki: {}\n", text);
}

/// Says what the library can neither return nor throw.
class reporter final : public kumiki::observer {
  public:
    explicit reporter(bool verbose) : verbose_(verbose) { kumiki::set_observer(this); }
    ~reporter() override { kumiki::set_observer(nullptr); }
    void release_failed(const kumiki::error& failure) noexcept override {
        complain(std::string("not released: ") + failure.what());
    }
    void notice(std::string_view text) noexcept override {
        if (verbose_) complain(std::string(text));
    }

  private:
    bool verbose_;
};

void require_root() {
    if (::geteuid() != 0)
        throw kumiki::unsupported(EPERM,
                                  {.operation = "start a container",
                                   .remedy = "It takes root: run this as root, or with sudo."});
}

int run(int argc, char** argv) {
    const example::options given = example::parse_options(argc, argv);
    if (given.help) {
        fmt::print("{}", example::help_text());
        return 0;
    }
    if (given.version) {
        fmt::print("kumiki {}\n", kumiki::version);
        return 0;
    }
    const reporter tell(given.verbose);
    require_root();
    if (argc == 1) {
        example::leave_the_host();
        return example::demonstrate();
    }
    example::check_options(given);
    return example::run_tool(given);
}

}  // namespace

int main(int argc, char** argv) {
    ::signal(SIGPIPE,
             SIG_IGN);  // a reader that went away is an error to be told, and no sudden end
    try {
        return run(argc, argv);
    } catch (const kumiki::error& failure) {
        complain(failure.what());
        return kumiki::exit_status_of(failure);
    } catch (const std::exception& failure) {
        complain(failure.what());
        return status_not_started;
    }
}
