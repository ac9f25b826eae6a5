// main() of every test program: Catch2's, with a count line that also knows of skipped tests.
//
//   kumiki: 12 passed, 0 failed, 3 skipped
//
// tests/run adds these lines up. The exit status is 0 when something passed and nothing failed,
// 77 when nothing passed and nothing failed (ctest's SKIP_RETURN_CODE), else 1.
#if __has_include(<catch2/catch_test_macros.hpp>)
#include <catch2/catch_session.hpp>
#include <catch2/catch_test_case_info.hpp>
#include <catch2/reporters/catch_reporter_event_listener.hpp>
#include <catch2/reporters/catch_reporter_registrars.hpp>
using listener_base = Catch::EventListenerBase;
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
using listener_base = Catch::TestEventListenerBase;
#endif

#include <unistd.h>

#include <cstdio>
#include <string>

#include "support/catch.hpp"

namespace {

constexpr int exit_skipped = 77;

struct counts {
    unsigned passed = 0;
    unsigned failed = 0;
    unsigned skipped = 0;
};

counts total;
std::string running;
bool skipped = false;
const pid_t started_as = ::getpid();

class counter : public listener_base {
  public:
    using listener_base::listener_base;

    void testCaseStarting(const Catch::TestCaseInfo& test) override {
        running = test.name;
        skipped = false;
    }
    void testCaseEnded(const Catch::TestCaseStats& stats) override {
        if (::getpid() != started_as) {
            std::fprintf(stderr, "a child that '%s' forked came back into Catch\n",
                         running.c_str());
            ::_exit(98);
        }
        if (stats.totals.assertions.failed > 0)
            ++total.failed;
        else if (skipped)
            ++total.skipped;
        else
            ++total.passed;
        running.clear();
    }
};

CATCH_REGISTER_LISTENER(counter)

}  // namespace

void kumiki_test::skip(const std::string& reason) {
    skipped = true;
    std::printf("SKIPPED: %s: %s\n", running.c_str(), reason.c_str());
    std::fflush(stdout);
}

int main(int argc, char** argv) {
    // Read through a pipe by ctest: whole lines, so that a crash does not swallow what came before.
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    Catch::Session session;
    if (const int bad = session.applyCommandLine(argc, argv); bad != 0) return bad;
    const auto& options = session.configData();
#if __has_include(<catch2/catch_test_macros.hpp>)
    const bool lists = options.showHelp || options.libIdentify || options.listTests ||
                       options.listTags || options.listReporters || options.listListeners;
#else
    const bool lists = options.showHelp || options.libIdentify || options.listTests ||
                       options.listTags || options.listTestNamesOnly || options.listReporters;
#endif
    const int status = session.run();
    if (lists) return status;
    std::printf("kumiki: %u passed, %u failed, %u skipped\n", total.passed, total.failed,
                total.skipped);
    if (total.failed > 0 || (status != 0 && total.passed + total.skipped > 0)) return 1;
    return total.passed > 0 ? 0 : exit_skipped;
}
