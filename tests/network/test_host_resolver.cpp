#include <kumiki/network/host_resolver.hpp>

#include "support/busybox.hpp"
#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("Where the host's file names a stub on loopback alone, the servers behind it count") {
    const kumiki_test::temporary_directory place;
    const std::vector<std::string> files{place.path() + "/etc", place.path() + "/behind"};
    CHECK(host_resolv_conf(loopback_servers::left_out, files).empty());
    kumiki_test::write_text(files[0], "nameserver 127.0.0.53\n");
    CHECK(host_resolv_conf(loopback_servers::left_out, files) == "nameserver 127.0.0.53\n");
    kumiki_test::write_text(files[1], "nameserver 192.0.2.53\n");
    CHECK(host_resolv_conf(loopback_servers::left_out, files) == "nameserver 192.0.2.53\n");
    CHECK(host_resolv_conf(loopback_servers::kept, files) == "nameserver 127.0.0.53\n");
    kumiki_test::write_text(files[0], "nameserver 2001:db8::53\n");
    CHECK(host_resolv_conf(loopback_servers::left_out, files) == "nameserver 2001:db8::53\n");
}
