// The demonstration: one container with everything, and what the kernel says of it.
#pragma once

namespace example {

/// Moves the calling thread, and so this process, to a network and a mount namespace of its own.
/// To be called before any other thread is started. Errors: kumiki::error.
void leave_the_host();

/// Shows a container and checks each claim by the kernel. Returns the exit status: 0 when all held.
/// Errors: kumiki::error.
int demonstrate();

}  // namespace example
