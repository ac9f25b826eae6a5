#include <sys/mount.h>

#include <kumiki/rootfs/mount_attributes.hpp>

#include "support/catch.hpp"

using namespace kumiki;

TEST_CASE("each flag of a mount is one bit of the kernel's") {
    CHECK(detail::attribute_bits(mount_flag::none) == 0);
    CHECK(detail::attribute_bits(mount_flag::nosuid) == MOUNT_ATTR_NOSUID);
    CHECK(detail::attribute_bits(mount_flag::nodev) == MOUNT_ATTR_NODEV);
    CHECK(detail::attribute_bits(mount_flag::noexec) == MOUNT_ATTR_NOEXEC);
    CHECK(detail::attribute_bits(mount_flag::nodiratime) == MOUNT_ATTR_NODIRATIME);
    CHECK(detail::attribute_bits(mount_flag::nosymfollow) == MOUNT_ATTR_NOSYMFOLLOW);
    CHECK(detail::attribute_bits(mount_flag::nosuid | mount_flag::noexec) ==
          (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC));
    CHECK(sys::mount_attr_atime == MOUNT_ATTR__ATIME);
    CHECK(sys::mount_attr_noatime == MOUNT_ATTR_NOATIME);
    CHECK(sys::mount_attr_strictatime == MOUNT_ATTR_STRICTATIME);
}

TEST_CASE("each propagation is one of mount(2)'s") {
    CHECK(detail::propagation_bit(mount_propagation::private_) == MS_PRIVATE);
    CHECK(detail::propagation_bit(mount_propagation::slave) == MS_SLAVE);
    CHECK(detail::propagation_bit(mount_propagation::shared) == MS_SHARED);
    CHECK(detail::propagation_bit(mount_propagation::unbindable) == MS_UNBINDABLE);
}
