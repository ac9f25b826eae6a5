// Ranges of host ids for user namespaces that no two containers get at once, in whatever process,
// and that are free again when their holder ends.
//
// A pool is a span of ids, cut into ranges of one size, and a file. The lease of the n-th range is
// a lock on the n-th byte of that file, held by its open file description (fcntl(2), F_OFD_SETLK,
// 3.15): the kernel drops it with the process, and nothing has to be cleaned up. All that use the
// same file must use the same span and size. The file stays empty.
// Lifetime: a child that was forked without exec shares the description and so keeps the leases.
#pragma once

#include <fcntl.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/ns/id_map.hpp>
#include <kumiki/ns/subordinate_ids.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

namespace detail {

struct id_pool_state {
    id_span ids;
    std::uint32_t size = 0;
    unique_fd file;
    std::mutex mutex = {};
    std::set<std::uint32_t> held = {};  // a description's own locks do not conflict with each other
    std::uint32_t next = 0;

    bool lock(std::uint32_t number, short type) const {
        struct flock range{};
        range.l_type = type;
        range.l_whence = SEEK_SET;
        range.l_start = static_cast<off_t>(number);
        range.l_len = 1;
        const int result = sys::retry([&] { return ::fcntl(file.get(), F_OFD_SETLK, &range); });
        if (result != 0 && (errno == EAGAIN || errno == EACCES)) return false;
        sys::check(result, "lock", "a range of ids");
        return true;
    }
    void give_back(std::uint32_t number) {
        const std::lock_guard hold(mutex);
        held.erase(number);
        lock(number, F_UNLCK);
    }
};

}  // namespace detail

/// A range of host ids that is the holder's alone. It must be held for as long as processes or files
/// with these ids are there.
class id_lease {
  public:
    id_lease(id_lease&& other) noexcept : pool_(std::move(other.pool_)), number_(other.number_) {}
    id_lease& operator=(id_lease&& other) noexcept {
        std::swap(pool_, other.pool_);
        std::swap(number_, other.number_);
        return *this;
    }
    id_lease(const id_lease&) = delete;
    id_lease& operator=(const id_lease&) = delete;
    ~id_lease() {
        if (pool_) detail::release_quietly([&] { pool_->give_back(number_); });
    }

    id_span ids() const noexcept { return {pool_->ids.first + number_ * pool_->size, pool_->size}; }
    /// Ids from 0 on are those of the range.
    id_map map() const { return {{0, ids().first, ids().count}}; }

  private:
    friend class id_pool;
    id_lease(std::shared_ptr<detail::id_pool_state> pool, std::uint32_t number) noexcept
        : pool_(std::move(pool)), number_(number) {}

    std::shared_ptr<detail::id_pool_state> pool_;
    std::uint32_t number_;
};

/// Leases ranges of one size out of a span.
class id_pool {
  public:
    /// The pool whose locks are in the file `path` below `directory` (made when missing, for the
    /// caller alone). Errors: invalid_input for a span that has no range of `size`.
    id_pool(id_span ids, std::uint32_t size, int directory, const std::string& path)
        : state_(std::make_shared<detail::id_pool_state>()) {
        if (size == 0 || ids.count / size == 0 || std::uint64_t{ids.first} + ids.count > 0xffffffff)
            throw invalid_input("pool of ids",
                                std::to_string(ids.first) + ':' + std::to_string(ids.count),
                                "It has no range of " + std::to_string(size) +
                                    " ids, or goes beyond the last id, 4294967294.");
        state_->ids = ids;
        state_->size = size;
        state_->file = sys::open_at(directory, path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    }

    /// How many ranges there are, leased or not.
    std::uint32_t ranges() const noexcept { return state_->ids.count / state_->size; }

    /// A range that nobody has: the next after the one that was leased last, so that one that was
    /// given back rests. Errors: EUSERS when all are taken.
    id_lease lease() {
        const std::lock_guard hold(state_->mutex);
        detail::id_pool_state& pool = *state_;
        for (std::uint32_t tried = 0; tried < ranges(); ++tried) {
            const std::uint32_t number = pool.next;
            pool.next = number + 1 == ranges() ? 0 : number + 1;
            if (pool.held.contains(number) || !pool.lock(number, F_WRLCK)) continue;
            pool.held.insert(number);
            return {state_, number};
        }
        throw error(EUSERS, {.operation = "lease a range of ids",
                             .object = "from " + std::to_string(pool.ids.first) + ':' +
                                       std::to_string(pool.ids.count),
                             .remedy = "All of its " + std::to_string(ranges()) +
                                       " ranges are taken; give the pool a larger span."});
    }

  private:
    std::shared_ptr<detail::id_pool_state> state_;
};

}  // namespace kumiki::inline v0
