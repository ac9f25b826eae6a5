// The supervisor's ends of the pipes that a start has made for 0, 1 and 2 (stdio::pipe()).
#pragma once

#include <array>
#include <cerrno>
#include <utility>

#include <kumiki/async/pipe.hpp>
#include <kumiki/async/scheduler.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/unique_fd.hpp>

namespace kumiki::inline v0 {

/// Up to three ends; asking for one that is not there is an error. Move-only.
class standard_pipes {
  public:
    standard_pipes() = default;
    standard_pipes(scheduler& io, std::array<unique_fd, 3> ends) {
        if (ends[0]) in_ = pipe_writer(io, std::move(ends[0]));
        if (ends[1]) out_ = pipe_reader(io, std::move(ends[1]));
        if (ends[2]) err_ = pipe_reader(io, std::move(ends[2]));
    }

    bool has_in() const noexcept { return static_cast<bool>(in_); }
    bool has_out() const noexcept { return static_cast<bool>(out_); }
    bool has_err() const noexcept { return static_cast<bool>(err_); }
    pipe_writer& in() { return require(in_, "the standard input"); }
    pipe_reader& out() { return require(out_, "the standard output"); }
    pipe_reader& err() { return require(err_, "the standard error"); }

  private:
    template <class End>
    static End& require(End& end, const char* what) {
        if (!end)
            throw error(EBADF, {.operation = "use the pipe of",
                                .object = what,
                                .step = {},
                                .container = {},
                                .remedy = "There is none, or it has been closed: a start makes one "
                                          "where the spec says stdio::pipe()."});
        return end;
    }

    pipe_writer in_;
    pipe_reader out_;
    pipe_reader err_;
};

}  // namespace kumiki::inline v0
