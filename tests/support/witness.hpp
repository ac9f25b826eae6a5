// What the programs of others (ip, tc, bridge) say of a namespace: witnesses of a test.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include "support/netns.hpp"

namespace kumiki_test {

/// What `command` prints in `ns`, its errors too.
inline std::string witness(const private_netns& ns, const std::string& command) {
    return ns.run([&] {
        std::string text;
        const std::string line = "PATH=$PATH:/usr/sbin:/sbin; { " + command + "; } 2>&1";
        FILE* pipe = ::popen(line.c_str(), "r");
        if (pipe == nullptr) return std::string("popen failed");
        char part[512];
        while (const std::size_t size = ::fread(part, 1, sizeof part, pipe))
            text.append(part, size);
        ::pclose(pipe);
        return text;
    });
}

/// True when the program `name` is installed.
inline bool has_witness(const std::string& name) {
    return std::system(
               ("PATH=$PATH:/usr/sbin:/sbin; command -v " + name + " >/dev/null").c_str()) == 0;
}

/// True when `text` has `part` in it.
inline bool says(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace kumiki_test

/// Skips the test that runs where network namespaces cannot be made, or `program` is missing.
#define NEEDS_NETNS_AND(program)                                                                   \
    NEEDS_NETNS;                                                                                   \
    if (!::kumiki_test::has_witness(program)) KUMIKI_SKIP("there is no " program " program")
