// Which of the floor's steps stand beside which of kumiki's spans.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

namespace bench {

/// One row of the table. Names are those of floor.hpp's steps and of the timeline's spans, the
/// latter with "child: " or "supervisor: " before them.
struct beside {
    const char* what;
    std::vector<std::string_view> ours;
    std::vector<std::string_view> floors;
};

inline const std::vector<beside>& rows_beside() {
    static const std::vector<beside> rows{
        {"checks, leases and the plan",
         {"supervisor: validate", "supervisor: leases", "supervisor: plan"},
         {}},
        {"cgroup made, opened, limited", {"supervisor: cgroup"}, {"cgroup: make, open, limit"}},
        {"clone3", {"child: clone"}, {"clone3"}},
        {"the child waits for its network namespace", {"child: netns"}, {}},
        {"the supervisor waits for it, beside the child", {"supervisor: netns"}, {}},
        {"cgroup namespace, host name, session",
         {"child: cgroup", "child: hostname", "child: session"},
         {"cgroup namespace, session"}},
        {"the overlay, files of /etc",
         {"child: root", "child: mounts"},
         {"mounts: propagation off", "mounts: tmpfs for the upper layer", "files of /etc",
          "mounts: overlay"}},
        {"proc, sysfs, cgroup2", {"child: proc", "child: sys"}, {"mounts: proc, sysfs, cgroup2"}},
        {"/dev, its nodes and mounts",
         {"child: dev"},
         {"mounts: /dev and its nodes", "mounts: devpts, shm, mqueue"}},
        {"masked and read-only paths",
         {"child: masks"},
         {"mounts: masked paths", "mounts: read-only paths"}},
        {"pivot_root, the old root gone",
         {"child: pivot"},
         {"mounts: pivot_root", "mounts: old root gone"}},
        {"the child waits for its network", {"child: network"}, {}},
        {"link, addresses, routes, port; kumiki: beside the child",
         {"supervisor: network"},
         {"network: veth", "network: addresses, routes", "network: dnat element"}},
        {"capabilities", {"child: limits", "child: identity"}, {"capabilities"}},
        {"no_new_privs, seccomp", {"child: seccomp"}, {"no_new_privs, seccomp"}},
        {"descriptors, execve, first instruction",
         {"child: descriptors", "child: exec"},
         {"descriptors, execve, first instruction"}},
        {"payload's end, all released",
         {"end"},
         {"exit: payload ends, namespaces go", "waitid", "cgroup: remove", "network: element out"}},
        {"all", {"all"}, {"all"}}};
    return rows;
}

}  // namespace bench
