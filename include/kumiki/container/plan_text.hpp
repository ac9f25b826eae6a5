// A plan as text, a line a step, in the manner of strace(1): for people, and for the test that holds
// what a child does against what its plan says.
#pragma once

#include <string>
#include <string_view>

#include <kumiki/container/plan.hpp>
#include <kumiki/security/syscall_table.hpp>

namespace kumiki::inline v0 {

/// The name of the call that a step makes first (a special step: the one that it is made of).
inline std::string_view call_name(const step& s) {
    switch (s.kind) {
    case step_kind::call:
        break;
    case step_kind::close_others:
        return "close_range";
    case step_kind::make_path:
        return "openat2";
    case step_kind::await_byte:
        return "ppoll";
    case step_kind::receive_slot:
        return "ppoll";
    case step_kind::send_slot:
        return "sendmsg";
    case step_kind::hand_on:
        return "clone";
    case step_kind::inspect:
        return "openat2";
    case step_kind::allow_path:
        return "openat2";
    case step_kind::verify_text:
        return "pread64";
    case step_kind::exec:
        return "execve";
    }
    const std::string_view name = syscall_name(static_cast<int>(s.number));
    return name.empty() ? "syscall" : name;
}

/// One step: `dev: mknodat($9, "null", 8630, 259)  # null`. `$9` is the result of an earlier step.
inline std::string to_string(const plan& from, std::size_t index) {
    const step& s = from.steps().at(index);
    std::string text = std::string(name_of(s.in)) + ": " + std::string(call_name(s)) + "(";
    std::size_t count = 6;
    while (count > 0 && s.arguments[count - 1] == 0 && (s.slots >> (count - 1) & 1) == 0) --count;
    for (std::size_t i = 0; i < count; ++i) {
        if (i != 0) text += ", ";
        switch (from.shape_of(index, i)) {
        case operand::shape::number:
            text += std::to_string(s.arguments[i]);
            break;
        case operand::shape::address:
            text += "&";
            break;
        case operand::shape::slot:
            text += "$" + std::to_string(s.arguments[i]);
            break;
        case operand::shape::text:
            text += '"' + std::string(reinterpret_cast<const char*>(s.arguments[i])) + '"';
            break;
        }
    }
    text += ")";
    if (s.result != no_slot) text += " -> $" + std::to_string(s.result);
    return text + "  # " + std::string(from.shown(index));
}

/// All steps, a line each.
inline std::string to_string(const plan& from) {
    std::string text;
    for (std::size_t i = 0; i < from.size(); ++i) text += to_string(from, i) + "\n";
    return text;
}

}  // namespace kumiki::inline v0
