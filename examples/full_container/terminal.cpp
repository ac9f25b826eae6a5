#include <sys/ioctl.h>
#include <unistd.h>

#include <kumiki/sys/check.hpp>

#include "terminal.hpp"

namespace example {

std::optional<kumiki::terminal_size> size_of_terminal(int fd) {
    winsize size{};
    if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0)
        return std::nullopt;
    return kumiki::terminal_size{.rows = size.ws_row, .columns = size.ws_col};
}

raw_terminal::raw_terminal(int fd) : fd_(fd) {
    termios now{};
    if (::tcgetattr(fd, &now) != 0) return;
    before_ = now;
    ::cfmakeraw(&now);
    kumiki::sys::check(::tcsetattr(fd, TCSADRAIN, &now), "set the terminal to raw mode");
}

void raw_terminal::restore() noexcept {
    if (before_) ::tcsetattr(fd_, TCSADRAIN, &*before_);
    before_.reset();
}

}  // namespace example
