// Where coroutine frames live: on the heap, with the few that were freed last kept for the next ones.
//
// A call into a task and back out of it, again and again, is what programs of tasks mostly do. A
// thread keeps up to four free blocks of each size, at most 66 KiB in all, and gives them back when it
// ends. A frame may be freed on another thread than the one it was made on. Builds with a
// sanitizer take every frame from the heap, so that the use of a dead one is seen.
// Left out: allocators of the user's.
#pragma once

#include <cstddef>
#include <new>

namespace kumiki::inline v0::detail {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool keeps_frames = false;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
inline constexpr bool keeps_frames = false;
#else
inline constexpr bool keeps_frames = true;
#endif
#else
inline constexpr bool keeps_frames = true;
#endif

/// The free blocks of one thread. Constant at the start, so that reaching it costs no check.
struct frame_cache {
    static constexpr std::size_t step = 32;  // bytes: sizes are rounded up to multiples of it
    static constexpr std::size_t sizes = 32;
    static constexpr std::size_t most = 4;  // blocks of one size

    struct block {
        block* next;
        std::size_t number;  // with those behind it
    };

    block* free[sizes] = {};
    std::size_t limit = 0;  // `most` from when its end is taken care of until it has come

    bool keep(void* frame, std::size_t index) noexcept {
        block* const first = free[index];
        const std::size_t number = first == nullptr ? 1 : first->number + 1;
        if (number > limit) return false;
        free[index] = ::new (frame) block{first, number};
        return true;
    }
    /// Gives everything back to the heap.
    void clear() noexcept {
        for (std::size_t i = 0; i < sizes; ++i) {
            while (block* const first = free[i]) {
                free[i] = first->next;
                ::operator delete(first, (i + 1) * step);
            }
        }
    }
};
inline constinit thread_local frame_cache kept_frames;

/// Opens the thread's cache, and empties it when the thread ends.
struct frame_cache_life {
    frame_cache_life() noexcept { kept_frames.limit = frame_cache::most; }
    ~frame_cache_life() {
        kept_frames.limit = 0;
        kept_frames.clear();
    }
};

/// As free_frame(), for a block that the cache did not keep.
[[gnu::noinline]] inline void free_unkept_frame(void* frame, std::size_t index) noexcept {
    static thread_local const frame_cache_life life;  // the first one opens the cache
    ::operator delete(frame, (index + 1) * frame_cache::step);
}

/// Memory for a coroutine frame. Errors: std::bad_alloc.
inline void* allocate_frame(std::size_t size) {
    const std::size_t index = (size - 1) / frame_cache::step;
    if (!keeps_frames || index >= frame_cache::sizes) return ::operator new(size);
    frame_cache& cache = kept_frames;
    frame_cache::block* const first = cache.free[index];
    if (first == nullptr) return ::operator new((index + 1) * frame_cache::step);
    cache.free[index] = first->next;
    return first;
}

/// The end of what allocate_frame() gave for `size`.
inline void free_frame(void* frame, std::size_t size) noexcept {
    const std::size_t index = (size - 1) / frame_cache::step;
    if (!keeps_frames || index >= frame_cache::sizes) return ::operator delete(frame, size);
    if (!kept_frames.keep(frame, index)) free_unkept_frame(frame, index);
}

}  // namespace kumiki::inline v0::detail
