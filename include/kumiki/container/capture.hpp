// Running a command for what it writes: both of its outputs at once, up to a bound, its input fed
// meanwhile, and how it ended.
//
//   auto seen = co_await run_and_capture(io, std::move(spec), {.limit = 64_KiB});
//   auto inside = co_await run_and_capture(io, box, std::move(command));  // an exec_spec
//   seen.out.text, seen.err.text, seen.result.exit_code()
//
// What is beyond the bound is read, too, and thrown away, so that no command waits for room; it is
// counted. Nothing waits for a descendant that has kept the pipes when the command has ended.
#pragma once

#include <poll.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <kumiki/async/scheduler.hpp>
#include <kumiki/async/scope.hpp>
#include <kumiki/async/task.hpp>
#include <kumiki/container/container.hpp>
#include <kumiki/core/error.hpp>
#include <kumiki/core/units.hpp>

namespace kumiki::inline v0 {

/// What to feed, and how much to keep.
struct capture_options {
    bytes limit{1 << 20};  ///< of each output; 1 MiB
    std::string_view input{};  ///< the whole standard input; lives up to the end of the await
};

/// What a command wrote to one of its outputs.
struct captured_text {
    std::string text{};
    std::uint64_t dropped = 0;  ///< how many bytes were beyond the limit
    /// Another process had it open when the command had ended: what that wrote later is not here.
    bool still_open = false;

    bool is_whole() const noexcept { return dropped == 0 && !still_open; }
};

/// All that a command left. The result is container_result or sys::exit_status.
template <class Result>
struct captured {
    captured_text out{};
    captured_text err{};  ///< empty where it was merged into `out`
    Result result{};
};

namespace detail {

/// Collects what comes out of one pipe.
class collector {
  public:
    collector(pipe_reader& from, std::uint64_t limit, captured_text& to)
        : from_(from), limit_(limit), to_(to), buffer_(new std::byte[size]) {}

    /// Up to the end of the pipe, or a stop.
    template <class = void>
    task<void> collect() {
        for (;;) {
            const std::size_t count = co_await from_.read({buffer_.get(), size});
            if (count == 0) co_return;
            take(count);
        }
    }
    /// What the command had written when it ended; the rest may never come to an end.
    void finish() {
        for (std::size_t left = from_.available(); left != 0;) {
            const auto count = from_.try_read({buffer_.get(), std::min(left, size)});
            if (!count || *count == 0) break;
            take(*count);
            left -= *count;
        }
        pollfd end{.fd = from_.get(), .events = POLLIN, .revents = 0};
        to_.still_open = ::poll(&end, 1, 0) != 1 || (end.revents & POLLHUP) == 0;
    }

  private:
    static constexpr std::size_t size = 64 * 1024;  // that of a pipe

    void take(std::size_t count) {
        const std::size_t room = limit_ - to_.text.size();
        const std::size_t kept = std::min<std::size_t>(room, count);
        to_.text.append(reinterpret_cast<const char*>(buffer_.get()), kept);
        to_.dropped += count - kept;
    }

    pipe_reader& from_;
    std::uint64_t limit_;
    captured_text& to_;
    std::unique_ptr<std::byte[]> buffer_;
};

/// A command that does not read all of its input has not failed.
template <class = void>
inline task<void> feed(pipe_writer& to, std::string_view input) {
    co_await to.write(input);
    to.close();
}

/// Feeds and collects while the command runs; the tasks are stopped once it has ended.
template <class Process, class Result>
class capturing {
  public:
    capturing(Process& process, const capture_options& options, captured<Result>& to)
        : process_(process), options_(options), to_(to) {
        standard_pipes& pipes = process.pipes();
        if (pipes.has_out()) out_.emplace(pipes.out(), options.limit.count, to.out);
        if (pipes.has_err()) err_.emplace(pipes.err(), options.limit.count, to.err);
    }
    task<void> operator()(scope& tasks) { return run(*this, tasks); }
    /// After the end of those tasks.
    void finish() {
        if (out_) out_->finish();
        if (err_) err_->finish();
    }

  private:
    static task<void> run(capturing& self, scope& tasks) {
        if (self.process_.pipes().has_in())
            tasks.spawn(feed(self.process_.in(), self.options_.input));
        if (self.out_) tasks.spawn(self.out_->collect());
        if (self.err_) tasks.spawn(self.err_->collect());
        auto result = co_await self.process_.wait();
        self.to_.result = std::move(result);
        tasks.cancel();
    }

    Process& process_;
    capture_options options_;
    captured<Result>& to_;
    std::optional<collector> out_;
    std::optional<collector> err_;
};

template <class Result, class Process>
task<captured<Result>> capture(scheduler& io, Process& process, capture_options options) {
    captured<Result> seen;
    capturing<Process, Result> work(process, options, seen);
    co_await with_scope(io, std::ref(work));
    work.finish();
    co_return seen;
}

/// The pipes that a capture needs. Errors: invalid_input for a terminal.
template <class Spec>
void want_pipes(Spec& spec, const capture_options& options) {
    if (spec.terminal)
        throw invalid_input("terminal", "", "The output of a terminal cannot be captured.");
    const bool merged = spec.stdio[2].from() == stdio::source::merge;
    spec.stdio = {options.input.empty() ? stdio::null() : stdio::pipe(), stdio::pipe(),
                  merged ? stdio::merge() : stdio::pipe()};
}

}  // namespace detail

/// Feeds and reads the pipes of a container that runs already, and waits for its end. Of the three
/// those take part for which its spec has said stdio::pipe().
/// Errors: as wait(). Lifetime: the container stays where it is up to the end of the await.
template <class = void>
inline task<captured<container_result>> capture(scheduler& io, container& box,
                                                capture_options options = {}) {
    return detail::capture<container_result>(io, box, options);
}
/// As above for a process that entered a container.
template <class = void>
inline task<captured<sys::exit_status>> capture(scheduler& io, exec_process& process,
                                                capture_options options = {}) {
    return detail::capture<sys::exit_status>(io, process, options);
}

/// Starts `spec` with pipes (a standard error that is stdio::merge() stays that; without input
/// there is stdio::null()), and yields what it wrote and how it ended.
/// Errors: as container::start() and wait(). A stop kills the container.
template <class = void>
inline task<captured<container_result>> run_and_capture(scheduler& io, container_spec spec,
                                                        capture_options options = {}) {
    detail::want_pipes(spec.process, options);
    auto box = co_await container::start(io, std::move(spec));
    auto seen = co_await capture(io, box, options);
    co_return seen;
}
/// As above for a command in a container that runs already.
/// Errors: as container::exec(). A stop kills the command.
template <class = void>
inline task<captured<sys::exit_status>> run_and_capture(scheduler& io, container& box,
                                                        exec_spec spec,
                                                        capture_options options = {}) {
    detail::want_pipes(spec, options);
    auto process = co_await box.exec(std::move(spec));
    auto seen = co_await capture(io, process, options);
    co_return seen;
}

}  // namespace kumiki::inline v0
