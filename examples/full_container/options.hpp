// The command line of full_container: one table, from which options are parsed and --help is made.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <kumiki/cgroup/limits.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/network/policy.hpp>
#include <kumiki/network/publish.hpp>
#include <kumiki/rootfs/mount.hpp>
#include <kumiki/security/capability.hpp>
#include <kumiki/security/rlimits.hpp>

namespace example {

/// The command line cannot be understood; what() names the option.
class usage_error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

enum class terminal_choice { automatic, always, never };

struct options {
    bool help = false;
    bool version = false;
    bool verbose = false;
    bool events = false;
    bool timeline = false;
    terminal_choice terminal = terminal_choice::automatic;

    std::string name;
    std::string hostname;
    std::string rootfs;  ///< empty: the busybox one
    kumiki::access_mode access = kumiki::access_mode::read_write;
    std::vector<kumiki::mount_description> mounts;
    std::vector<std::string> env;  ///< "NAME=value", or "NAME": as it is out here
    std::string workdir = "/";
    std::string user = "0:0";

    kumiki::resource_limits limits;
    kumiki::capability_set capabilities = kumiki::default_capabilities;
    std::vector<kumiki::resource_limit> rlimits{kumiki::default_resource_limits.begin(),
                                                kumiki::default_resource_limits.end()};

    std::string network;  ///< "none", "host", a name; empty: see network_name()
    std::optional<kumiki::cidr> subnet;
    std::optional<kumiki::cidr> subnet6;
    std::vector<kumiki::published_port> publish;
    std::vector<kumiki::cidr> allow_from;          ///< empty: everybody
    std::optional<kumiki::policy> egress;

    std::vector<std::string> command;

    /// "none", "host" or the bridge network to be joined: one is, when another option needs it.
    std::string network_name() const;
};

/// Errors: usage_error.
options parse_options(int argc, char** argv);
/// Refuses options that do not go together. Errors: usage_error.
void check_options(const options& given);
std::string help_text();

}  // namespace example
