#define ASIO_STANDALONE
#include "asio_side.hpp"

std::unique_ptr<bench::side> bench::make_asio() { return std::make_unique<asio_side>(); }
