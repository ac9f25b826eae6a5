// Where the time of a start went: spans on the monotonic clock, of the supervisor and of the child,
// as a value that can be kept, printed, or opened in a trace viewer; and the medians of many.
//
// The clone itself is the child's first span. Left out: the thread that makes the network namespace,
// for which either side may be seen to wait ("netns").
#pragma once

#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <kumiki/container/step.hpp>

namespace kumiki::inline v0 {

/// Who spent the time.
enum class timeline_track : std::uint8_t { supervisor, child };

/// One piece of work. Times are CLOCK_MONOTONIC, in nanoseconds.
struct timeline_span {
    const char* name = "";
    timeline_track track = timeline_track::supervisor;
    std::int64_t begin = 0;
    std::int64_t end = 0;
};

/// The spans of one start, and when it began.
class timeline {
  public:
    static std::int64_t now() noexcept {
        timespec t;
        ::clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * 1000000000LL + t.tv_nsec;
    }

    timeline() : origin_(now()), last_(origin_) { spans_.reserve(8 + phase_count); }

    /// Ends a span of the supervisor that began where the one before it ended. Returns when that is.
    std::int64_t mark(const char* name) {
        const std::int64_t at = now();
        spans_.push_back({name, timeline_track::supervisor, last_, at});
        last_ = at;
        return at;
    }
    /// Takes over what the child has left, which was `asked` for then. Its last phase ends with its
    /// execve, which is `end`.
    void add(const child_report& report, std::int64_t asked, std::int64_t end) {
        std::int64_t from = report.began;
        if (from == 0) return;
        spans_.push_back({"clone", timeline_track::child, std::min(asked, from), from});
        for (std::size_t i = 0; i < phase_count; ++i) {
            std::int64_t to = report.phase_end[i];
            if (i + 1 == phase_count) to = std::max(end, from);
            if (to == 0) continue;
            spans_.push_back({name_of(static_cast<phase>(i)), timeline_track::child, from, to});
            from = to;
        }
    }

    /// The start in the middle of many: of each span that at least half of them have, the medians of
    /// when it began, after its start did, and of how long it took, each by itself. The origin is 0.
    static timeline median(std::span<const timeline> starts) {
        struct seen {
            const timeline_span* like;
            std::vector<std::int64_t> begins{}, lengths{};
        };
        std::vector<seen> all;
        for (const timeline& start : starts)
            for (const timeline_span& span : start.spans()) {
                const auto is_like = [&](const seen& other) {
                    return other.like->track == span.track &&
                           std::string_view(other.like->name) == span.name;
                };
                auto at = std::ranges::find_if(all, is_like);
                if (at == all.end()) at = all.insert(at, {.like = &span});
                at->begins.push_back(span.begin - start.origin());
                at->lengths.push_back(span.end - span.begin);
            }
        timeline result;
        result.origin_ = result.last_ = 0;
        for (seen& each : all) {
            if (each.begins.size() * 2 < starts.size()) continue;
            const std::int64_t begin = middle(each.begins);
            result.spans_.push_back(
                {each.like->name, each.like->track, begin, begin + middle(each.lengths)});
        }
        return result;
    }

    const std::vector<timeline_span>& spans() const noexcept { return spans_; }
    std::int64_t origin() const noexcept { return origin_; }
    /// From the beginning to the end of the last span, in nanoseconds.
    std::int64_t total() const noexcept {
        std::int64_t last = origin_;
        for (const timeline_span& span : spans_) last = std::max(last, span.end);
        return last - origin_;
    }

    /// The Trace Event Format's JSON, for chrome://tracing and Perfetto.
    std::string to_chrome_trace() const {
        std::string json = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[";
        for (const timeline_span& span : spans_) {
            if (json.back() == '}') json += ',';
            json += std::string("{\"ph\":\"X\",\"cat\":\"start\",\"name\":\"") + span.name +
                    "\",\"pid\":1,\"tid\":" + (span.track == timeline_track::child ? "2" : "1") +
                    ",\"ts\":" + microseconds(span.begin - origin_) +
                    ",\"dur\":" + microseconds(span.end - span.begin) + "}";
        }
        return json + "]}";
    }

  private:
    static std::int64_t middle(std::vector<std::int64_t>& values) {
        const auto half = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
        std::ranges::nth_element(values, half);
        return *half;
    }
    static std::string microseconds(std::int64_t nanoseconds) {
        std::string fraction = std::to_string(nanoseconds % 1000);
        fraction.insert(0, 3 - std::min<std::size_t>(3, fraction.size()), '0');
        return std::to_string(nanoseconds / 1000) + "." + fraction;
    }

    std::int64_t origin_;
    std::int64_t last_;
    std::vector<timeline_span> spans_;
};

/// The supervisor's span in which it does nothing but wait for its child.
inline constexpr std::string_view waiting_span = "child";

/// How much of the time between `from` and `to` the spans stand for, in nanoseconds: some work was
/// under way, by whomever. That the supervisor waits for its child explains nothing.
inline std::int64_t covered(const timeline& line, std::int64_t from, std::int64_t to) {
    std::vector<std::pair<std::int64_t, std::int64_t>> pieces;
    for (const timeline_span& span : line.spans())
        if (span.track == timeline_track::child || span.name != waiting_span)
            pieces.emplace_back(std::max(span.begin, from), std::min(span.end, to));
    std::ranges::sort(pieces);
    std::int64_t sum = 0;
    for (const auto& [begin, end] : pieces) {
        sum += std::max<std::int64_t>(end - std::max(begin, from), 0);
        from = std::max(from, end);
    }
    return sum;
}

/// A table for a terminal: when, how long, who, what, and a bar, `width` characters for it all.
inline std::string to_string(const timeline& line, std::size_t width = 40) {
    const auto total = std::max<std::int64_t>(line.total(), 1);
    const auto column = [&](std::int64_t at) {
        return static_cast<std::size_t>(at * static_cast<std::int64_t>(width) / total);
    };
    const auto padded = [](std::string text, std::size_t size) {
        return text.size() < size ? std::string(size - text.size(), ' ') + text : text;
    };
    std::string text = "  at us   took us  who         what\n";
    for (const timeline_span& span : line.spans()) {
        const std::string name = span.name;
        const std::size_t from = std::min(column(span.begin - line.origin()), width - 1);
        const std::size_t to = std::max(column(span.end - line.origin()), from + 1);
        text += padded(std::to_string((span.begin - line.origin()) / 1000), 7) +
                padded(std::to_string((span.end - span.begin) / 1000), 10) +
                (span.track == timeline_track::child ? "  child       " : "  supervisor  ") + name +
                std::string(name.size() < 14 ? 14 - name.size() : 1, ' ') + "|" +
                std::string(from, ' ') + std::string(to - from, '=') +
                std::string(width - std::min(to, width), ' ') + "|\n";
    }
    return text;
}

}  // namespace kumiki::inline v0
