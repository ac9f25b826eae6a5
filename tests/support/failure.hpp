// What a call fails with.
#pragma once

#include <string>
#include <utility>

#include <kumiki/core/error.hpp>

namespace kumiki_test {

/// The error of `call`; one of number 0 that says nothing when it throws none.
template <class Call>
kumiki::error failure_of(Call&& call) {
    try {
        std::forward<Call>(call)();
    } catch (const kumiki::error& failure) {
        return failure;
    }
    return {0, {}};
}

template <class Call>
std::string message_of(Call&& call) {
    return failure_of(std::forward<Call>(call)).what();
}

/// The errno of what `call` throws; 0 when it throws nothing, or an error without one.
template <class Call>
int errno_of(Call&& call) {
    return failure_of(std::forward<Call>(call)).errno_value();
}

}  // namespace kumiki_test
