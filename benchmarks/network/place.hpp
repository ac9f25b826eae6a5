// Where bench_network works: mount and network namespaces of its own, in which /run is a tmpfs. All that
// it makes, and all that the programs make that it runs, goes with them.
//
// What is left when the program is killed in the middle: one empty directory in /tmp, kumiki-bench-PID.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include <kumiki/netlink/address.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/route.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/sys/netns.hpp>

#include "support/field.hpp"

namespace bench {

/// A network namespace that `ip -n NAME` finds.
class netns {
  public:
    explicit netns(std::string name) : name_(std::move(name)) {
        sys::open_at(AT_FDCWD, path(), O_WRONLY | O_CREAT | O_EXCL, 0600);
        fd_ = sys::on_own_thread([&] {
            sys::check(::unshare(CLONE_NEWNET), "unshare network namespace");
            constexpr const char* own = "/proc/thread-self/ns/net";
            sys::check(::mount(own, path().c_str(), nullptr, MS_BIND, nullptr), "mount", path());
            return sys::open_at(AT_FDCWD, own, O_RDONLY);
        });
    }
    netns(netns&& other) noexcept
        : name_(std::exchange(other.name_, {})), fd_(std::move(other.fd_)) {}
    netns& operator=(netns&&) = delete;
    ~netns() {
        if (name_.empty()) return;
        ::umount2(path().c_str(), MNT_DETACH);
        ::unlink(path().c_str());
    }

    int fd() const noexcept { return fd_.get(); }
    const std::string& name() const noexcept { return name_; }
    std::string path() const { return "/run/netns/" + name_; }

  private:
    std::string name_;
    unique_fd fd_;
};

/// The calling thread is in another network namespace while this lives.
class visit {
  public:
    explicit visit(int netns_fd)
        : home_(sys::open_at(AT_FDCWD, "/proc/thread-self/ns/net", O_RDONLY)) {
        sys::check(::setns(netns_fd, CLONE_NEWNET), "enter network namespace");
    }
    visit(const visit&) = delete;
    visit& operator=(const visit&) = delete;
    ~visit() { ::setns(home_.get(), CLONE_NEWNET); }

  private:
    unique_fd home_;
};

class network_place {
  public:
    /// Enters the namespaces. Needs root, before any other thread is started.
    network_place() : directory_("/tmp/kumiki-bench-" + std::to_string(::getpid())) {
        fs::create_directory(directory_);
        sys::check(::unshare(CLONE_NEWNS | CLONE_NEWNET), "unshare");
        sys::check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "mount", "/");
        for (const char* where : {directory_.c_str(), "/run"})
            sys::check(::mount("bench", where, "tmpfs", 0, "mode=755"), "mount tmpfs", where);
        fs::create_directory("/run/netns");
        set_up_loopback(sys::open_at(AT_FDCWD, "/proc/thread-self/ns/net", O_RDONLY).get());
    }
    network_place(const network_place&) = delete;
    network_place& operator=(const network_place&) = delete;
    ~network_place() {
        ::umount2(directory_.c_str(), MNT_DETACH);
        ::rmdir(directory_.c_str());
    }

    const std::string& directory() const noexcept { return directory_; }
    /// For kumiki's locks.
    std::string state() const { return directory_ + "/state"; }

    static void set_up_loopback(int netns_fd) {
        auto socket = kumiki::netlink_socket::open_in(netns_fd, NETLINK_ROUTE);
        kumiki::netlink_batch batch;
        kumiki::set_link(batch, "lo", {.up = true});
        socket.transact(batch);
    }

  private:
    std::string directory_;
};

/// A veth pair between two namespaces, up; `near` and `far` are the ends' addresses.
inline void connect(const netns& one, const std::string& name, kumiki::cidr near, const netns& two,
                    kumiki::cidr far) {
    auto here = kumiki::netlink_socket::open_in(one.fd(), NETLINK_ROUTE);
    auto there = kumiki::netlink_socket::open_in(two.fd(), NETLINK_ROUTE);
    kumiki::netlink_batch make;
    kumiki::create_veth(make, {.name = name, .peer_name = "eth0", .peer_netns = two.fd()});
    here.transact(make);
    const auto give = [](kumiki::netlink_socket& to, const std::string& link,
                         kumiki::cidr address) {
        const int index = kumiki::find_link(to, link).value().index;
        kumiki::netlink_batch batch;
        kumiki::add_address(batch, index, address);
        kumiki::set_link(batch, index, {.up = true});
        to.transact(batch);
    };
    give(here, name, near);
    give(there, "eth0", far);
}

/// A container on a bridge in the namespace `host` as it is without kumiki: no rules, no options.
inline void plug_in_plainly(const netns& host, kumiki::cidr gateway, const netns& inside,
                            kumiki::cidr address) {
    auto here = kumiki::netlink_socket::open_in(host.fd(), NETLINK_ROUTE);
    auto there = kumiki::netlink_socket::open_in(inside.fd(), NETLINK_ROUTE);
    kumiki::netlink_batch make;
    kumiki::create_bridge(make, {.name = "plain0"});
    here.transact(make);
    const int bridge = kumiki::find_link(here, "plain0").value().index;
    kumiki::netlink_batch more;
    kumiki::add_address(more, bridge, gateway);
    kumiki::set_link(more, bridge, {.up = true});
    kumiki::create_veth(
        more, {.name = "plain1", .peer_name = "eth0", .peer_netns = inside.fd(), .master = bridge});
    kumiki::set_link(more, "plain1", {.up = true});
    here.transact(more);
    const int link = kumiki::find_link(there, "eth0").value().index;
    kumiki::netlink_batch setup;
    kumiki::add_address(setup, link, address);
    kumiki::set_link(setup, link, {.up = true});
    kumiki::add_route(setup, kumiki::default_route(gateway.address, link));
    there.transact(setup);
}

}  // namespace bench
