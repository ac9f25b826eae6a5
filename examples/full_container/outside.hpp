// A network namespace that stands for the world outside of the host: joined to it by a veth pair,
// with addresses from which it asks the host's published ports for a page.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <kumiki/core/ip.hpp>
#include <kumiki/ns/namespace_fd.hpp>

namespace example {

/// What became of a request.
struct answer {
    bool connected = false;
    std::string body{};   ///< what the server sent behind the head
    std::string why{};    ///< for a person: "200 OK", "timed out", "connection refused"
};

/// GET / over HTTP, from `source` (unspecified: the kernel's choice) to `server`, on this thread.
answer http_get(const kumiki::ip_address& source, const kumiki::ip_address& server,
                std::uint16_t port, int milliseconds);

/// Everything vanishes with the object.
class outside_world {
  public:
    /// `host` are the addresses that the calling thread's network namespace gets on the link,
    /// `clients` those of the other end.
    outside_world(const std::vector<kumiki::cidr>& host, const std::vector<kumiki::cidr>& clients);

    answer get(const kumiki::ip_address& source, const kumiki::ip_address& server,
               std::uint16_t port, int milliseconds = 3000) const;
    /// A socket that listens out there; it never answers.
    kumiki::unique_fd listen(const kumiki::ip_address& address, std::uint16_t port) const;

  private:
    kumiki::namespace_fd netns_;
};

/// Brings up lo in the calling thread's network namespace.
void bring_up_loopback();

}  // namespace example
