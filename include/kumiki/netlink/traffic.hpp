// Traffic control over rtnetlink: rate limits, delay and loss of what an interface sends, and what it
// receives led through another interface where it can be shaped the same.
//
// rtnetlink(7), tc(8): RTM_NEWQDISC with the kinds tbf, netem and ingress, RTM_NEWTFILTER with u32 and
// mirred; Linux 5.10 has all of it, where the modules are there: the error names them otherwise.
// Left out: classes, other queues, other filters than one for everything.
#pragma once

#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <kumiki/core/error.hpp>
#include <kumiki/netlink/link.hpp>
#include <kumiki/netlink/message.hpp>
#include <kumiki/netlink/socket.hpp>
#include <kumiki/netlink/view.hpp>

namespace kumiki::inline v0 {

/// A rate of data.
struct bytes_per_second {
    std::uint64_t count = 0;
    constexpr auto operator<=>(const bytes_per_second&) const = default;
};

/// A rate as network people write it: megabits(10) is 1,250,000 bytes a second.
constexpr bytes_per_second megabits(std::uint64_t count) noexcept { return {count * 125'000}; }

/// What happens to the packets that go one way.
struct traffic_shape {
    std::optional<bytes_per_second> rate = {};  ///< at most; none: as much as there is
    std::chrono::microseconds delay{0};
    std::chrono::microseconds jitter{0};  ///< how far the delay of a packet can be off, both ways
    double loss = 0;  ///< the share of packets that is lost: 0 to 1

    bool is_delayed_or_lost() const noexcept { return delay.count() != 0 || loss > 0; }
    bool is_none() const noexcept { return !rate && !is_delayed_or_lost(); }
};

/// Errors: invalid_input unless `shape` can be.
inline void require_shape(const traffic_shape& shape) {
    using namespace std::chrono_literals;
    if (shape.rate && (shape.rate->count < 1000 || shape.rate->count > 125'000'000'000))
        throw invalid_input("rate", std::to_string(shape.rate->count),
                            "It must be from 1,000 to 125,000,000,000 bytes a second.");
    if (shape.delay < 0us || shape.delay > 60s || shape.jitter < 0us || shape.jitter > shape.delay)
        throw invalid_input("delay", std::to_string(shape.delay.count()) + " us",
                            "It must be at most a minute, and the jitter at most the delay.");
    if (!(shape.loss >= 0 && shape.loss <= 1))
        throw invalid_input("loss", std::to_string(shape.loss), "It must be from 0 to 1.");
}

/// A queueing discipline, as the kernel shows it.
struct qdisc_info {
    int link = 0;
    std::string kind = {};
    std::uint32_t handle = 0;
    std::uint32_t parent = 0;  ///< TC_H_ROOT, TC_H_INGRESS or a class of another one
};

namespace detail {

inline void put_qdisc(netlink_batch& batch, std::uint16_t type, unsigned flags, int link,
                      std::uint32_t parent, std::uint32_t handle, netlink_note note) {
    tcmsg header{};
    header.tcm_family = AF_UNSPEC;
    header.tcm_ifindex = link;
    header.tcm_parent = parent;
    header.tcm_handle = handle;
    note.object = "interface " + std::to_string(link);
    batch.add(type, flags, header, std::move(note));
}

inline constexpr unsigned replace_flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;

// Tokens for a few milliseconds, and no less than the packets have; what waits is 50 ms at most.
inline void put_rate_limit(netlink_batch& batch, int link, std::uint32_t parent,
                           bytes_per_second rate, std::uint32_t mtu) {
    constexpr std::uint64_t most = std::numeric_limits<std::uint32_t>::max();
    const std::uint64_t burst =
        std::min(most / 4, std::max<std::uint64_t>(rate.count / 250, 2 * (mtu + 100)));
    tc_tbf_qopt options{};
    options.rate.linklayer = TC_LINKLAYER_ETHERNET;  // so no table of rates has to come along
    options.rate.rate = static_cast<std::uint32_t>(std::min(rate.count, most));
    options.limit = static_cast<std::uint32_t>(std::min(most / 2, rate.count / 20 + burst));
    put_qdisc(batch, RTM_NEWQDISC, replace_flags, link, parent, TC_H_MAKE(0x20U << 16, 0U),
              {"limit rate", {}, "sch_tbf"});
    batch.text(TCA_KIND, "tbf");
    const auto nest = batch.nested(TCA_OPTIONS);
    batch.structure(TCA_TBF_PARMS, options);
    if (rate.count > most) batch.u64(TCA_TBF_RATE64, rate.count);
    batch.u32(TCA_TBF_BURST, static_cast<std::uint32_t>(burst));
}

inline void put_delay_and_loss(netlink_batch& batch, int link, const traffic_shape& shape) {
    constexpr auto whole = static_cast<double>(std::numeric_limits<std::uint32_t>::max());
    const auto in_nanoseconds = [](std::chrono::microseconds time) {
        return static_cast<std::uint64_t>(std::chrono::nanoseconds(time).count());
    };
    tc_netem_qopt options{};
    options.limit = 10'000;
    options.loss = static_cast<std::uint32_t>(shape.loss * whole);
    put_qdisc(batch, RTM_NEWQDISC, replace_flags, link, TC_H_ROOT, TC_H_MAKE(0x10U << 16, 0U),
              {"delay and lose packets", {}, "sch_netem"});
    batch.text(TCA_KIND, "netem");
    const auto nest = batch.nested(TCA_OPTIONS);
    batch.raw(options);
    batch.u64(TCA_NETEM_LATENCY64, in_nanoseconds(shape.delay));
    batch.u64(TCA_NETEM_JITTER64, in_nanoseconds(shape.jitter));
}

}  // namespace detail

/// Requests that what the interface with index `link` and this MTU sends be shaped, in the place of
/// how it was before. Nothing is requested for a shape that is none. Errors: invalid_input; ENODEV;
/// ENOENT with the module that the kernel lacks.
inline void shape_link(netlink_batch& batch, int link, std::uint32_t mtu,
                       const traffic_shape& shape) {
    require_shape(shape);
    if (shape.is_delayed_or_lost()) detail::put_delay_and_loss(batch, link, shape);
    const std::uint32_t parent =
        shape.is_delayed_or_lost() ? TC_H_MAKE(0x10U << 16, 1U) : TC_H_ROOT;
    if (shape.rate) detail::put_rate_limit(batch, link, parent, *shape.rate, mtu);
}

/// Requests that nothing more be shaped of what the interface sends. Errors: ENOENT; ENODEV.
inline void unshape_link(netlink_batch& batch, int link) {
    detail::put_qdisc(batch, RTM_DELQDISC, NLM_F_ACK, link, TC_H_ROOT, 0, {"unshape link"});
}

/// Requests that all that the interface with index `link` receives be led through the one with
/// index `through` (an ifb, which gives it back when it has been shaped). Errors: EEXIST when the
/// interface has such a way already; ENODEV; ENOENT with the module that the kernel lacks.
inline void lead_received(netlink_batch& batch, int link, int through) {
    detail::put_qdisc(batch, RTM_NEWQDISC, detail::create_flags, link, TC_H_INGRESS,
                      TC_H_MAKE(TC_H_INGRESS, 0U), {"take what is received", {}, "sch_ingress"});
    batch.text(TCA_KIND, "ingress");

    tcmsg header{};
    header.tcm_ifindex = link;
    header.tcm_parent = TC_H_MAKE(TC_H_INGRESS, 0U);
    header.tcm_info = TC_H_MAKE(
        1U << 16, std::uint32_t{detail::to_big_endian(static_cast<std::uint16_t>(ETH_P_ALL))});
    batch.add(
        RTM_NEWTFILTER, detail::create_flags, header,
        {"lead what is received", "interface " + std::to_string(link), "cls_u32 or act_mirred"});
    batch.text(TCA_KIND, "u32");
    const auto options = batch.nested(TCA_OPTIONS);
    // One key behind the head, with an empty mask: every packet has it.
    std::array<std::byte, sizeof(tc_u32_sel) + sizeof(tc_u32_key)> everything{};
    everything[offsetof(tc_u32_sel, flags)] = std::byte{TC_U32_TERMINAL};
    everything[offsetof(tc_u32_sel, nkeys)] = std::byte{1};
    batch.data(TCA_U32_SEL, everything);
    const auto actions = batch.nested(TCA_U32_ACT);
    const auto first = batch.nested(1);
    batch.text(TCA_ACT_KIND, "mirred");
    const auto action = batch.nested(TCA_ACT_OPTIONS);
    tc_mirred redirect{};
    redirect.action = TC_ACT_STOLEN;
    redirect.eaction = TCA_EGRESS_REDIR;
    redirect.ifindex = static_cast<std::uint32_t>(through);
    batch.structure(TCA_MIRRED_PARMS, redirect);
}

/// An RTM_NEWQDISC message as a value. Errors: EBADMSG.
inline std::optional<qdisc_info> parse_qdisc(const netlink_message& message) {
    const auto header = message.family_header<tcmsg>();
    qdisc_info found{
        .link = header.tcm_ifindex, .handle = header.tcm_handle, .parent = header.tcm_parent};
    if (const auto kind = message.attributes<tcmsg>().find(TCA_KIND)) found.kind = kind->text();
    return found;
}

/// The queueing disciplines of the interface with index `link`.
inline std::vector<qdisc_info> list_qdiscs(netlink_socket& socket, int link) {
    netlink_batch batch;
    tcmsg header{};
    header.tcm_ifindex = link;
    batch.add(RTM_GETQDISC, NLM_F_DUMP, header, {"list qdiscs"});
    auto all = socket.dump(batch, parse_qdisc);
    std::erase_if(all, [&](const qdisc_info& each) { return each.link != link; });
    return all;
}

}  // namespace kumiki::inline v0
