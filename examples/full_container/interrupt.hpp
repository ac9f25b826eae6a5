// Work that SIGINT, SIGTERM and SIGHUP stop in good order: what it holds is released before the
// program ends with 128 plus the signal.
#pragma once

#include <signal.h>

#include <utility>
#include <variant>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/signals.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/async/when.hpp>

namespace example {

inline kumiki::task<int> until_signal(kumiki::scheduler& io, kumiki::task<int> work) {
    kumiki::signal_stream signals(io, {SIGINT, SIGTERM, SIGHUP});
    auto first = co_await kumiki::when_any(std::move(work), signals.next());
    if (first.index() == 0) co_return std::get<0>(first);
    const auto& arrived = std::get<1>(first);
    co_return 128 + (arrived ? arrived->signal : SIGINT);
}

}  // namespace example
