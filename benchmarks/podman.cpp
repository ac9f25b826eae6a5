// bench_podman: `podman run` with a bridge and a published port, beside kumiki with the same.
// benchmarks/run builds it; see docs/performance.md.
//
// podman keeps what it knows in a tmpfs of the benchmark's, and so does CNI; its root is the plain
// directory. It is executed for each container, as it is used: it has no daemon.
#include <sys/mount.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "support/field.hpp"
#include "support/floor.hpp"
#include "support/options.hpp"
#include "support/ours.hpp"
#include "support/peers.hpp"

namespace bench {
namespace {

/// An OCI runtime that is crun, preloaded with `library` if there is one: podman clears the
/// environment.
std::string runtime(const place& where, const std::string& library) {
    if (library.empty()) return "crun";
    const std::string path = where.directory() + "/crun";
    std::ofstream(path) << "#!/bin/sh\nexport LD_PRELOAD=" << library
                        << "\nexec /usr/bin/crun \"$@\"\n";
    sys::check(::chmod(path.c_str(), 0755), "chmod", path);
    return path;
}

peer podman(const place& where, const std::string& library) {
    fs::create_directories("/var/lib/cni");
    for (const char* path : {"/run", "/var/lib/cni"})
        sys::check(::mount("bench", path, "tmpfs", 0, "mode=755"), "mount tmpfs", path);
    const std::string in = where.directory() + "/podman";
    // No limit that could not be set here is asked for: those of the others are not either.
    return peer({"/usr/bin/podman",
                 "--root",
                 in + "/root",
                 "--runroot",
                 in + "/run",
                 "--tmpdir",
                 in + "/tmp",
                 "--cgroup-manager=cgroupfs",
                 "run",
                 "--rm",
                 "--runtime",
                 runtime(where, library),
                 "--cgroup-parent",
                 "/" + where.name(),
                 "--pids-limit",
                 "0",
                 "--ulimit",
                 "nofile=1024:1024",
                 "--ulimit",
                 "nproc=100:100",
                 "--network",
                 "podman",
                 "-p",
                 "18080:80",
                 "--rootfs",
                 where.rootfs(),
                 "/bin/payload"},
                "");
}

void run(const start_options& wanted) {
    const place where(wanted.busybox, wanted.payload);
    floor_network network;
    floor_start bare(where, &network);
    kumiki_start ours(where);
    const peer theirs = podman(where, wanted.preload);
    contender floor{.name = "bare+net", .run = [&] { return bare.run(); }};
    contender mine{.name = "kumiki+net", .run = [&] { return ours.run(true); }};
    contender other{.name = "podman", .run = [&] {
                        const sample one = theirs.run();
                        settle(std::chrono::milliseconds(200));  // what it left behind cleans up
                        return one;
                    }};
    warn_of_load();
    constexpr std::size_t settling = 2;
    measure({&floor, &mine, &other}, wanted.rounds, settling);

    nlohmann::json json = host();
    fmt::print(
        "\nA container with a bridge and a published port. Milliseconds: median (quartiles; "
        "minimum).\n\n"
        "| | samples | to the payload's first instruction | to all released "
        "|\n|---|---|---|---|\n");
    for (const contender* each : {&floor, &mine, &other}) {
        fmt::print("| {} | {} | {} | {} |\n", each->name, each->first.size(), cell(each->first),
                   cell(each->released));
        json["podman"][each->name] = to_json(*each);
    }
    const ratio first = ratio_of_medians(other.first, mine.first);
    const ratio released = ratio_of_medians(other.released, mine.released);
    fmt::print("| podman / kumiki (95 %) | | {} | {} |\n", cell(first), cell(released));
    json["ratios"]["podman / kumiki+net"] = {{"first", to_json(first)},
                                             {"released", to_json(released)}};
    wanted.write(json);
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
    using namespace bench;
    return main_of(argc, argv, "bench_podman", start_usage, parse_start_options, run);
}
