#include <kumiki/network/publish.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    may_be_invalid([&] {
        const auto port = published_port::parse(text_of(data, size));
        require(published_port::parse(to_string(port)) == port);
    });
    return 0;
}
