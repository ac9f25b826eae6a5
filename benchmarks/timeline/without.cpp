// Compiled against copies of two headers that take no times, and with kumiki's inline namespace by
// another name, so that both kumikis are in one program (CMakeLists.txt).
#define BENCH_VARIANT without_timeline
#include "one_start.hpp"

std::function<double()> starter_without_timeline(const std::string& rootfs) {
    return BENCH_VARIANT::starter(rootfs);
}
