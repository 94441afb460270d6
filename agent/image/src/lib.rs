//! A container image from its registry to a verified root filesystem, inside the guest.
