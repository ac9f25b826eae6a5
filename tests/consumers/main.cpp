// A program of somebody else's, as small as it can be and still need every library to link.
#include <cstdio>

#include <kumiki/kumiki.hpp>

using namespace kumiki::literals;

kumiki::cidr other();

int main() {
    if (kumiki::parse_bytes("64M") != 64_MiB || other().prefix != 24) return 1;
    std::printf("kumiki %s\n", kumiki::version);
}
