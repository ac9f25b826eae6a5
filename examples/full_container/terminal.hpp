// The terminal that the program was started on: its size, and raw mode for as long as the container
// has the say.
#pragma once

#include <termios.h>

#include <optional>

#include <kumiki/container/process_spec.hpp>

namespace example {

/// The size of the terminal on `fd`; nothing when it is none, or does not know.
std::optional<kumiki::terminal_size> size_of_terminal(int fd);

/// Passes every byte of a terminal through while it lives, also Ctrl-C; then all is as before.
class raw_terminal {
  public:
    /// Does nothing when `fd` is no terminal.
    explicit raw_terminal(int fd);
    raw_terminal(const raw_terminal&) = delete;
    raw_terminal& operator=(const raw_terminal&) = delete;
    ~raw_terminal() { restore(); }
    void restore() noexcept;

  private:
    int fd_;
    std::optional<termios> before_;
};

}  // namespace example
