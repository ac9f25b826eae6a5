// Memory that the supervisor shares with its children, in both ways of cloning.
//
// A new mapping costs the kernel a file of its own, some 12 us; so pages that were given back are kept
// for the next plans, at most 16. A fork of this process begins with none: it would otherwise
// share them with its parent. mmap(2): MAP_SHARED | MAP_ANONYMOUS.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include <kumiki/sys/check.hpp>

namespace kumiki::inline v0::detail {

/// The pages that nobody uses now.
class shared_pages {
  public:
    static constexpr std::size_t page = 4096;

    static shared_pages& shared() {
        // Never destroyed: plans may outlive the end of main().
        static shared_pages& one = *new shared_pages;
        return one;
    }
    /// One page, all zero; null when none is kept.
    void* take() noexcept {
        const std::lock_guard hold(mutex_);
        if (owner_ != ::getpid() || free_.empty()) return nullptr;
        void* const kept = free_.back();
        free_.pop_back();
        std::memset(kept, 0, page);
        return kept;
    }
    /// False when enough are kept already, or the page is another process's, too.
    bool keep(void* memory) noexcept {
        const std::lock_guard hold(mutex_);
        if (owner_ != ::getpid()) return false;
        if (free_.size() == free_.capacity()) return false;
        free_.push_back(memory);
        return true;
    }

  private:
    shared_pages() { free_.reserve(16); }

    const pid_t owner_ = ::getpid();
    std::mutex mutex_;
    std::vector<void*> free_;
};

struct release_shared {
    std::size_t size = 0;
    void operator()(void* memory) const noexcept {
        if (size > shared_pages::page || !shared_pages::shared().keep(memory))
            ::munmap(memory, size);
    }
};
using shared_memory = std::unique_ptr<void, release_shared>;

/// `size` bytes, all zero, shared with every child that is cloned while they live.
/// Errors: ENOMEM.
inline shared_memory make_shared_memory(std::size_t size) {
    if (size <= shared_pages::page) {
        size = shared_pages::page;
        if (void* const kept = shared_pages::shared().take()) return shared_memory(kept, {size});
    }
    void* const made =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    sys::check(made == MAP_FAILED ? -1 : 0, "mmap", "memory shared with the child");
    return shared_memory(made, {size});
}

}  // namespace kumiki::inline v0::detail
