// Ports held by locks in a file that all networks of a namespace share: for SCTP, of which a kernel
// without its module has no sockets that could be bound, though it translates its packets.
//
// A port on one address of the host is a lock on one byte, a port on all addresses of a family one on
// the 2^32 bytes of that port, held by an open file description (fcntl(2), F_OFD_SETLK, Linux 3.15):
// so the two conflict as they should, and the kernel frees them with the process. (An IPv6 address has
// its place by a hash: two that share it would be told to be in use, one in 2^32.) The file stays empty.
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include <kumiki/core/ip.hpp>
#include <kumiki/core/observer.hpp>
#include <kumiki/core/unique_fd.hpp>
#include <kumiki/sys/check.hpp>
#include <kumiki/sys/file.hpp>

namespace kumiki::inline v0::detail {

/// What one container holds. What is taken twice is free after it was given back twice.
class port_locks {
  public:
    /// The file's name in the directory that the networks of a namespace share.
    static constexpr const char* file_name = "ports-sctp";

    explicit port_locks(int directory)
        : file_(sys::open_at(directory, file_name, O_RDWR | O_CREAT, 0600)) {}

    /// False when somebody else has it.
    bool take(const ip_address& address, std::uint16_t port) {
        const span wanted = span_of(address, port);
        const auto found = held_.find(wanted);
        if (found == held_.end() && !lock(wanted, F_WRLCK)) return false;
        ++held_[wanted];
        return true;
    }
    void give_back(const ip_address& address, std::uint16_t port) {
        const span gone = span_of(address, port);
        const auto found = held_.find(gone);
        if (found == held_.end() || --found->second != 0) return;
        held_.erase(found);
        // A lock has no depth: what is held of it for another reason must stay.
        std::int64_t from = gone.first;
        for (const auto& [other, count] : held_) {
            if (other.last < from || other.first > gone.last) continue;
            if (other.first > from) lock({from, other.first - 1}, F_UNLCK);
            from = std::max(from, other.last + 1);
        }
        if (from <= gone.last) lock({from, gone.last}, F_UNLCK);
    }

  private:
    struct span {
        std::int64_t first;
        std::int64_t last;
        auto operator<=>(const span&) const = default;
    };

    static span span_of(const ip_address& address, std::uint16_t port) {
        const std::int64_t first = (std::int64_t{address.is_v6()} << 16 | port) << 32;
        if (address.is_unspecified()) return {first, first + 0xffffffff};
        std::uint32_t place = 0;
        for (std::size_t i = 0; i < address.size(); ++i)
            place = address.is_v4() ? place << 8 | address[i] : (place ^ address[i]) * 16777619U;
        return {first + place, first + place};
    }
    bool lock(const span& bytes, short type) {
        struct flock range{};
        range.l_type = type;
        range.l_whence = SEEK_SET;
        range.l_start = bytes.first;
        range.l_len = bytes.last - bytes.first + 1;
        const int result = sys::retry([&] { return ::fcntl(file_.get(), F_OFD_SETLK, &range); });
        if (result != 0 && (errno == EAGAIN || errno == EACCES)) return false;
        sys::check(result, "lock port", file_name);
        return true;
    }

    unique_fd file_;
    std::map<span, int> held_;
};

}  // namespace kumiki::inline v0::detail
