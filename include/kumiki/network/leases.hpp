// Address leases that two processes never get twice and that vanish with whom they belong to.
//
// A pool is a network and a file. The lease of the network's n-th address is a lock on the n-th
// byte of the file, held by the pool's open file description (fcntl(2), F_OFD_SETLK, Linux 3.15):
// the kernel drops it when the owner dies, and nothing has to be cleaned up. The file stays empty.
// Lifetime: a child that was forked without exec shares the description and so keeps the leases.
// Left out: memory of who had which address; ARP probes for what others use without a lease.
#pragma once

#include <fcntl.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include <kumiki/core/error.hpp>
#include <kumiki/core/ip.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0 {

namespace detail {

struct pool_state {
    cidr subnet;
    unique_fd file;
    std::uint64_t first = 0;  // the offsets that are leased by themselves
    std::uint64_t last = 0;
    std::mutex mutex = {};
    std::set<std::uint64_t> held = {};  // a description's own locks do not conflict with each other
    std::uint64_t next = 0;

    // The distance of `address` from the network's own; nothing beyond what a file offset can be.
    std::optional<std::uint64_t> offset_of(const ip_address& address) const {
        std::uint64_t offset = 0;
        const ip_address base = subnet.network();
        for (std::size_t i = 0; i < address.size(); ++i) {
            if (offset >> 54 != 0) return std::nullopt;
            offset = offset << 8 | static_cast<std::uint8_t>(address[i] ^ base[i]);
        }
        return offset;
    }
    bool lock(std::uint64_t offset, short type) {
        struct flock range{};
        range.l_type = type;
        range.l_whence = SEEK_SET;
        range.l_start = static_cast<off_t>(offset);
        range.l_len = 1;
        const int result = sys::retry([&] { return ::fcntl(file.get(), F_OFD_SETLK, &range); });
        if (result != 0 && (errno == EAGAIN || errno == EACCES)) return false;
        sys::check(result, "lock address lease", to_string(subnet));
        return true;
    }
    bool is_taken(std::uint64_t offset) {
        if (held.contains(offset)) return true;
        struct flock range{};
        range.l_type = F_WRLCK;
        range.l_whence = SEEK_SET;
        range.l_start = static_cast<off_t>(offset);
        range.l_len = 1;
        sys::check(sys::retry([&] { return ::fcntl(file.get(), F_OFD_GETLK, &range); }),
                   "look at address lease", to_string(subnet));
        return range.l_type != F_UNLCK;
    }
    bool take(std::uint64_t offset) {
        if (held.contains(offset) || !lock(offset, F_WRLCK)) return false;
        held.insert(offset);
        return true;
    }
    void give_back(std::uint64_t offset) {
        const std::lock_guard guard(mutex);
        held.erase(offset);
        lock(offset, F_UNLCK);
    }
};

}  // namespace detail

/// An address that is the holder's alone, among all processes that use the same pool.
class address_lease {
  public:
    address_lease(address_lease&& other) noexcept
        : pool_(std::move(other.pool_)), offset_(other.offset_) {}
    address_lease& operator=(address_lease&& other) noexcept {
        if (this != &other) {
            release();
            pool_ = std::move(other.pool_);
            offset_ = other.offset_;
        }
        return *this;
    }
    address_lease(const address_lease&) = delete;
    address_lease& operator=(const address_lease&) = delete;
    ~address_lease() { release(); }

    ip_address address() const { return pool_->subnet.network().plus(offset_); }
    /// The address with the prefix length of its network: what an interface is given.
    cidr with_prefix() const { return {.address = address(), .prefix = pool_->subnet.prefix}; }
    /// How far it is from the network's own address; unique in the pool.
    std::uint64_t offset() const noexcept { return offset_; }

  private:
    friend class address_pool;
    address_lease(std::shared_ptr<detail::pool_state> pool, std::uint64_t offset) noexcept
        : pool_(std::move(pool)), offset_(offset) {}
    void release() noexcept {
        if (pool_) detail::release_quietly([&] { pool_->give_back(offset_); });
        pool_.reset();
    }

    std::shared_ptr<detail::pool_state> pool_;
    std::uint64_t offset_;
};

/// The addresses of a network that can be leased: all but the network's own, its first one (the
/// gateway's) and, in IPv4, the broadcast address.
class address_pool {
  public:
    /// Opens the pool whose locks are in the file `path` below `directory` (made when missing).
    /// Errors: invalid_input for a network with no room for a gateway and a container.
    address_pool(const cidr& subnet, int directory, const std::string& path)
        : state_(std::make_shared<detail::pool_state>()) {
        const unsigned host_bits = subnet.address.bits() - subnet.prefix;
        if (host_bits < 2)
            throw invalid_input("subnet", to_string(subnet),
                                "It has no room for a gateway and a container.");
        state_->subnet = subnet;
        state_->file = sys::open_at(directory, path, O_RDWR | O_CREAT, 0600);
        state_->first = 2;
        // An IPv6 network is larger than what can ever be used by turns.
        state_->last = (std::uint64_t{1} << (host_bits < 32 ? host_bits : 32)) - 2;
        state_->next = state_->first;
    }

    const cidr& subnet() const noexcept { return state_->subnet; }
    ip_address gateway() const { return subnet().network().plus(1); }

    /// True while somebody has leased `address`, in whatever process.
    bool is_leased(const ip_address& address) const {
        if (!subnet().contains(address)) return false;
        const auto offset = state_->offset_of(address);
        const std::lock_guard guard(state_->mutex);
        return offset && state_->is_taken(*offset);
    }

    /// True while `address` is leased, but not by this pool: by another process, or by another pool
    /// of this one that has the same file.
    bool is_leased_elsewhere(const ip_address& address) const {
        if (!subnet().contains(address)) return false;
        const auto offset = state_->offset_of(address);
        const std::lock_guard guard(state_->mutex);
        return offset && !state_->held.contains(*offset) && state_->is_taken(*offset);
    }

    /// Leases `wanted`. Errors: invalid_input when it is not in the network or is not for leasing;
    /// EADDRINUSE when somebody has it.
    address_lease lease(const ip_address& wanted) {
        const auto refuse = [&](const char* why) {
            throw invalid_input("address", to_string(wanted), why + to_string(subnet()) + ".");
        };
        if (!subnet().contains(wanted)) refuse("It is not in the network's subnet ");
        if (wanted == subnet().network() || wanted == gateway() ||
            (wanted.is_v4() && wanted == subnet().last()))
            refuse("It is the network's own, the gateway's or the broadcast address of ");
        const auto offset = state_->offset_of(wanted);
        if (!offset) refuse("It is too far from the start of ");
        const std::lock_guard guard(state_->mutex);
        if (!state_->take(*offset))
            throw error(EADDRINUSE, {.operation = "lease address",
                                     .object = to_string(wanted),
                                     .remedy = "Another container of this network has it."});
        return {state_, *offset};
    }

    /// Leases a free address: the one at `hint` when that is free, else the next after the one that
    /// was leased last, so that an address that was given back rests. Errors: EADDRNOTAVAIL when
    /// all are taken.
    address_lease lease(std::optional<std::uint64_t> hint = {}) {
        const std::lock_guard guard(state_->mutex);
        detail::pool_state& pool = *state_;
        if (hint && *hint >= pool.first && *hint <= pool.last && pool.take(*hint))
            return {state_, *hint};
        const std::uint64_t count = pool.last - pool.first + 1;
        for (std::uint64_t tried = 0; tried < count; ++tried) {
            const std::uint64_t offset = pool.next;
            pool.next = offset == pool.last ? pool.first : offset + 1;
            if (pool.take(offset)) return {state_, offset};
        }
        throw error(EADDRNOTAVAIL,
                    {.operation = "lease address",
                     .object = "from the pool " + to_string(subnet()),
                     .remedy = "All of its " + std::to_string(count) +
                               " addresses are taken; give the network a larger subnet."});
    }

  private:
    std::shared_ptr<detail::pool_state> state_;
};

}  // namespace kumiki::inline v0
