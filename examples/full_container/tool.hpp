// The tool: one container from the command line, with this program's terminal, signals and exit
// status for its own.
#pragma once

#include "options.hpp"

namespace example {

/// Runs the container that the options describe; returns the exit status.
/// Errors: usage_error, kumiki::error.
int run_tool(const options& given);

}  // namespace example
