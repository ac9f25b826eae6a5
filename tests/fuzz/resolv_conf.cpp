#include <kumiki/network/names.hpp>

#include "fuzz/fuzz.hpp"

using namespace kumiki;
using namespace kumiki_fuzz;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    may_be_invalid([&] {
        const std::string text = resolv_conf_text(text_of(data, size));
        require(resolv_conf_text(text) == text);  // what it says is all that counts of it
    });
    return 0;
}
