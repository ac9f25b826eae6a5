#define ASIO_STANDALONE
#define ASIO_HAS_IO_URING
#define ASIO_DISABLE_EPOLL
#define asio asio_on_io_uring  // apart from the one of asio_epoll.cpp
#define asio_signal_handler asio_signal_handler_on_io_uring  // extern "C"
#define asio_detail_posix_thread_function asio_detail_posix_thread_function_on_io_uring
#include "asio_side.hpp"

std::unique_ptr<bench::side> bench::make_asio_on_io_uring() {
    return std::make_unique<asio_side>();
}
