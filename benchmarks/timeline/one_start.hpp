// A start as a function, in a namespace that the file names that includes this: the same code twice,
// with kumiki as it is and with a kumiki that takes no times (see CMakeLists.txt).
#include <functional>
#include <memory>
#include <string>

#include <kumiki/container/container.hpp>

namespace BENCH_VARIANT {

inline kumiki::task<void> start_once(kumiki::scheduler& io, std::string rootfs, double& took) {
    kumiki::container_spec spec{
        .rootfs = kumiki::rootfs::overlay(std::move(rootfs)),
        .process = {.args = {"/bin/busybox", "true"}, .env = {"PATH=/bin"}}};
    timespec before;
    timespec after;
    ::clock_gettime(CLOCK_MONOTONIC, &before);
    auto box = co_await kumiki::container::start(io, std::move(spec));
    ::clock_gettime(CLOCK_MONOTONIC, &after);
    took = static_cast<double>(after.tv_sec - before.tv_sec) * 1e6 +
           static_cast<double>(after.tv_nsec - before.tv_nsec) / 1e3;
    auto result = co_await box.wait();
    (void)result;
}

/// Starts a container and waits for its end: microseconds from the call of start() to its return.
inline std::function<double()> starter(const std::string& rootfs) {
    auto io = std::make_shared<kumiki::scheduler>();
    return [io, rootfs] {
        double took = 0;
        io->run(start_once(*io, rootfs, took));
        return took;
    };
}

}  // namespace BENCH_VARIANT
