// What stands behind a standard descriptor of a container's process: 0, 1 and 2.
//
//   .stdio = {stdio::null(), stdio::pipe(), stdio::merge()}    // or descriptors: {0, 1, log.get()}
#pragma once

#include <array>
#include <cstdint>

#include <kumiki/core/error.hpp>

namespace kumiki::inline v0 {

/// One of the three. A descriptor of this process stands for itself: it is not taken over, and not
/// needed any more once the start has returned.
class stdio {
  public:
    enum class source : std::uint8_t { descriptor, null, pipe, merge };

    constexpr stdio(int descriptor) noexcept : descriptor_(descriptor) {}  // NOLINT: by design
    /// The container's own /dev/null.
    static constexpr stdio null() noexcept { return stdio(source::null); }
    /// A pipe, made by the start; the other end is the container's in(), out() or err().
    static constexpr stdio pipe() noexcept { return stdio(source::pipe); }
    /// For 2: whatever 1 is.
    static constexpr stdio merge() noexcept { return stdio(source::merge); }

    constexpr source from() const noexcept { return from_; }
    /// -1 unless it is a descriptor.
    constexpr int descriptor() const noexcept { return descriptor_; }
    friend constexpr bool operator==(const stdio&, const stdio&) = default;

  private:
    constexpr explicit stdio(source from) noexcept : from_(from) {}

    source from_ = source::descriptor;
    int descriptor_ = -1;
};

/// Refuses what cannot be. Errors: invalid_input.
inline void require_stdio(const std::array<stdio, 3>& wanted) {
    for (const stdio& each : {wanted[0], wanted[1]})
        if (each.from() == stdio::source::merge)
            throw invalid_input("standard descriptor", "merge",
                                "Only the standard error can go where the standard output goes.");
}

}  // namespace kumiki::inline v0
