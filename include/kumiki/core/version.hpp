// The version of kumiki's headers, for `#if` and for humans.
//
// Everything public lives in `namespace kumiki::inline v0`: the inline namespace changes with an
// incompatible release, so that two versions in one process fail at link time and not at run time.
#pragma once

#define KUMIKI_VERSION_MAJOR 0
#define KUMIKI_VERSION_MINOR 1
#define KUMIKI_VERSION_PATCH 0

namespace kumiki::inline v0 {

/// The version of these headers as "major.minor.patch".
inline constexpr const char* version = "0.1.0";

}  // namespace kumiki::inline v0
