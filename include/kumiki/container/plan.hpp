// The plan of a start: every step that the child will take, written down before there is a child.
//
// A plan is data that can be printed, tested and timed. It owns all memory that its steps point to
// (one arena for text and structures, one shared page for the report), so it must outlive the child
// up to its execve. Making one has no side effect outside this process.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <kumiki/container/shared_memory.hpp>
#include <kumiki/container/step.hpp>
#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0 {

/// Names the place where a step leaves its result for later ones.
enum class slot : std::int8_t {};

/// An argument of a step: a number, an address in the plan's memory, or a slot.
class operand {
  public:
    template <class Number>
        requires std::is_integral_v<Number>
    operand(Number value) noexcept : value_(static_cast<long>(value)) {}  // NOLINT: by design
    template <class Object>
    operand(const Object* address) noexcept  // NOLINT: by design
        : value_(reinterpret_cast<long>(address)),
          what_(std::is_same_v<Object, char> ? shape::text : shape::address) {}
    operand(slot from) noexcept  // NOLINT: by design
        : value_(static_cast<long>(from)), what_(shape::slot) {}

    long value() const noexcept { return value_; }
    enum class shape : std::uint8_t { number, text, address, slot };
    shape what() const noexcept { return what_; }

  private:
    long value_;
    shape what_ = shape::number;
};

/// Memory that grows, never moves, and goes all at once.
class arena {
  public:
    void* allocate(std::size_t size, std::size_t alignment) {
        std::size_t at = (used_ + alignment - 1) / alignment * alignment;
        if (blocks_.empty() || at + size > capacity_) {
            capacity_ = std::max<std::size_t>(size, 8192);
            blocks_.push_back(std::make_unique_for_overwrite<std::max_align_t[]>(
                (capacity_ + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t)));
            at = 0;
        }
        used_ = at + size;
        return reinterpret_cast<char*>(blocks_.back().get()) + at;
    }

  private:
    std::vector<std::unique_ptr<std::max_align_t[]>> blocks_;
    std::size_t used_ = 0;
    std::size_t capacity_ = 0;
};

/// The steps of one child. Move-only; the addresses of what it owns do not change by a move.
class plan {
  public:
    plan() {
        report_ = shared_object<child_report>();
        steps_.reserve(256);
        details_.reserve(256);
    }

    /// An object, zero at first, in memory that the child shares in both ways of cloning: what the
    /// supervisor writes there later is what the child's steps see.
    template <class Object>
        requires std::is_trivially_destructible_v<Object>
    Object* shared_object() {
        shared_.push_back(detail::make_shared_memory(sizeof(Object)));
        return new (shared_.back().get()) Object;
    }
    /// Text as a C string that lives as long as the plan.
    const char* text(std::string_view value) {
        char* copy = static_cast<char*>(memory_.allocate(value.size() + 1, 1));
        std::memcpy(copy, value.data(), value.size());
        copy[value.size()] = '\0';
        return copy;
    }
    /// A plain object that lives as long as the plan.
    template <class Object>
        requires std::is_trivially_destructible_v<Object>
    Object* object(const Object& value) {
        return new (memory_.allocate(sizeof(Object), alignof(Object))) Object(value);
    }
    /// Consecutive plain objects that live as long as the plan.
    template <class Object>
        requires std::is_trivially_copyable_v<Object>
    Object* array(const Object* values, std::size_t count) {
        void* copy = memory_.allocate(sizeof(Object) * count, alignof(Object));
        if (count != 0) std::memcpy(copy, values, sizeof(Object) * count);
        return static_cast<Object*>(copy);
    }
    /// A null-terminated array of C strings, as execve takes it.
    const char* const* strings(const std::vector<std::string>& values) {
        auto** list = static_cast<const char**>(
            memory_.allocate(sizeof(char*) * (values.size() + 1), alignof(char*)));
        for (std::size_t i = 0; i < values.size(); ++i) list[i] = text(values[i]);
        list[values.size()] = nullptr;
        return list;
    }

    /// The child keeps `fd` open, under its number, up to the execve. Returns `fd`.
    int keep(int fd) {
        kept_.push_back(fd);
        return fd;
    }
    /// A slot that no other step uses.
    slot new_slot() {
        if (next_slot_ == static_cast<std::int8_t>(slot_count))
            throw error(0, {.operation = "make the plan",
                            .object = "slots",
                            .step = {},
                            .container = {},
                            .remedy = "It needs more intermediate results than there is room for: "
                                      "use fewer mounts."});
        return slot{next_slot_++};
    }

    /// The steps added from here on belong to `next`. Phases only go forward.
    void begin(phase next) noexcept { phase_ = next; }

    /// Adds a system call; its result goes to a slot with `into()`. `shown` is what an error names
    /// as the object; it must outlive the plan (a literal, or text()).
    plan& call(std::string_view shown, long number, std::initializer_list<operand> arguments) {
        return add(step_kind::call, shown, number, arguments);
    }
    /// Adds a step that is more than one call.
    plan& special(step_kind kind, std::string_view shown,
                  std::initializer_list<operand> arguments) {
        return add(kind, shown, 0, arguments);
    }
    /// The result of the step just added goes to `where`.
    plan& into(slot where) noexcept {
        steps_.back().result = static_cast<std::int8_t>(where);
        return *this;
    }
    /// `code` is no failure of the step just added; the next `skip` steps are then left out.
    plan& tolerate(int code, unsigned skip = 0) noexcept {
        steps_.back().tolerated = static_cast<std::int16_t>(code);
        steps_.back().skip = static_cast<std::uint16_t>(skip);
        return *this;
    }

    std::size_t size() const noexcept { return steps_.size(); }
    const std::vector<step>& steps() const noexcept { return steps_; }
    std::string_view shown(std::size_t index) const { return details_.at(index).shown; }
    /// What an argument of a step is.
    operand::shape shape_of(std::size_t index, std::size_t argument) const {
        return details_.at(index).arguments.at(argument);
    }
    /// The descriptors that the child keeps, ascending.
    std::vector<int> kept() const {
        std::vector<int> sorted = kept_;
        std::sort(sorted.begin(), sorted.end());
        sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
        return sorted;
    }

    /// Puts the closing of everything that is not kept in front, and gives out the programme.
    /// To be called once, last.
    child_program* finish() {
        const std::vector<int> sorted = kept();
        const int* list = array(sorted.data(), sorted.size());
        const phase at = std::exchange(phase_, phase::descriptors);
        special(step_kind::close_others, "inherited descriptors", {list, sorted.size()});
        std::rotate(steps_.begin(), steps_.end() - 1, steps_.end());
        std::rotate(details_.begin(), details_.end() - 1, details_.end());
        phase_ = at;
        return object(child_program{steps_.data(), steps_.size(), report_});
    }

    child_report& report() noexcept { return *report_; }
    const child_report& report() const noexcept { return *report_; }

  private:
    struct detail_of_step {
        std::string_view shown;
        std::array<operand::shape, 6> arguments{};
    };

    plan& add(step_kind kind, std::string_view shown, long number,
              std::initializer_list<operand> arguments) {
        step next{.kind = kind, .in = phase_, .number = number};
        detail_of_step detail{shown, {}};
        unsigned index = 0;
        for (const operand& argument : arguments) {
            next.arguments[index] = argument.value();
            detail.arguments[index] = argument.what();
            if (argument.what() == operand::shape::slot)
                next.slots = static_cast<std::uint8_t>(next.slots | 1U << index);
            ++index;
        }
        steps_.push_back(next);
        details_.push_back(detail);
        return *this;
    }

    arena memory_;
    std::vector<detail::shared_memory> shared_;
    child_report* report_ = nullptr;  ///< in the first of them
    std::vector<step> steps_;
    std::vector<detail_of_step> details_;
    std::vector<int> kept_;
    phase phase_ = phase::descriptors;
    std::int8_t next_slot_ = 0;
};

}  // namespace kumiki::inline v0
