// when_all and when_any: several things at once, in one thread.
//
//   auto [page, log] = ...;                      // not from a co_await: name the result first
//   auto both = co_await when_all(fetch(io), io.read(fd, buffer));
//   auto first = co_await when_any(serve(io), signals.next());  // first.index() says which
//
// Take tasks and any other awaitables. Every one has ended, and its frame is gone, before the
// awaiting task goes on. A stop reaches all of them.
#pragma once

#include <cstddef>
#include <optional>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include <kumiki/async/task.hpp>
#include <kumiki/async/task_group.hpp>
#include <kumiki/core/error.hpp>

namespace kumiki::inline v0 {
namespace detail {

template <class... T>
task<std::tuple<value_of_t<T>...>> all_of(task<T>... work) {
    promise_base& self = co_await this_task{};
    task_group group(self, group_stops::on_failure);
    (group.start(task_access::promise(work)), ...);
    co_await group.join();
    group.rethrow_failure();
    co_return std::tuple<value_of_t<T>...>{take_value(work)...};
}

template <class... T>
task<std::variant<value_of_t<T>...>> any_of(task<T>... work) {
    using result_type = std::variant<value_of_t<T>...>;
    promise_base& self = co_await this_task{};
    task_group group(self, group_stops::on_first_end);
    (group.start(task_access::promise(work)), ...);
    co_await group.join();
    group.rethrow_failure();
    std::optional<result_type> result;
    const auto take_winner = [&]<std::size_t... I>(std::index_sequence<I...>) {
        const auto take = [&]<std::size_t Index>(auto& candidate) {
            if (group.decisive() == &task_access::promise(candidate))
                result.emplace(std::in_place_index<Index>, take_value(candidate));
        };
        (take.template operator()<I>(work), ...);
    };
    take_winner(std::index_sequence_for<T...>{});
    ((work = {}), ...);  // what the losers hold is released before the winner is heard of
    co_return std::move(*result);
}

}  // namespace detail

/// Runs all of `work`; yields a tuple of their values (std::monostate for void).
///
/// Errors: when one fails, the others are stopped and awaited, and its exception is thrown.
template <class... Awaitable>
    requires(sizeof...(Awaitable) > 0)
[[nodiscard]] auto when_all(Awaitable... work) {
    return detail::all_of(detail::into_task(std::move(work))...);
}

/// Runs all of `work` until the first ends; the others are stopped and awaited, and what they yield
/// or throw is dropped. Yields a variant whose index() says which was first.
///
/// Errors: what the first threw.
template <class... Awaitable>
    requires(sizeof...(Awaitable) > 0)
[[nodiscard]] auto when_any(Awaitable... work) {
    return detail::any_of(detail::into_task(std::move(work))...);
}

/// As above for any number of tasks of one type; yields their values in order.
template <class T>
[[nodiscard]] task<std::vector<detail::value_of_t<T>>> when_all(std::vector<task<T>> work) {
    detail::promise_base& self = co_await detail::this_task{};
    detail::task_group group(self, detail::group_stops::on_failure);
    for (const task<T>& each : work) group.start(detail::task_access::promise(each));
    co_await group.join();
    group.rethrow_failure();
    std::vector<detail::value_of_t<T>> values;
    values.reserve(work.size());
    for (const task<T>& each : work) values.push_back(detail::take_value(each));
    co_return values;
}

/// The first of several tasks of one type that ended.
template <class T>
struct first_of {
    std::size_t index;  ///< in the vector that was given
    T value;
};

/// As above for any number of tasks of one type, but at least one.
template <class T>
[[nodiscard]] task<first_of<detail::value_of_t<T>>> when_any(std::vector<task<T>> work) {
    if (work.empty()) throw invalid_input("tasks of when_any", "none", "There must be one.");
    detail::promise_base& self = co_await detail::this_task{};
    detail::task_group group(self, detail::group_stops::on_first_end);
    for (const task<T>& each : work) group.start(detail::task_access::promise(each));
    co_await group.join();
    group.rethrow_failure();
    std::size_t index = 0;
    while (&detail::task_access::promise(work[index]) != group.decisive()) ++index;
    first_of<detail::value_of_t<T>> first{index, detail::take_value(work[index])};
    work.clear();
    co_return first;
}

}  // namespace kumiki::inline v0
