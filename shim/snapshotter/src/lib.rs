//! A containerd proxy snapshotter that keeps image layers off the node.
//!
//! Containers of the runtime have their images pulled inside their VMs, so the node
//! needs none of the layers and must not see them. containerd still wants a snapshot
//! of each; this crate answers for all of them without having any:
//!
//! 1. `Prepare` for a layer answers that its snapshot exists, so containerd fetches
//!    the manifest and the configuration and never a layer ([`service`]);
//! 2. every chain id is a committed snapshot, also after the state directory was
//!    wiped: the name says all there is to know ([`names`]);
//! 3. a container's snapshot is one mount that names the volume for the shim and is
//!    harmless on the node (`mounts`), and one small record ([`store`]).
//!
//! It lives on the node and is trusted by nobody in the VM: a lie told here starts a
//! container whose root the agent still takes from the image it verified itself.
//!
//! What containerd 2.x has to be told, beside `[proxy_plugins.kata-cc]` and the runtime's
//! own `snapshotter`:
//!
//! ```toml
//! [plugins.'io.containerd.cri.v1.images']
//!   use_local_image_pull = true
//! [plugins.'io.containerd.cri.v1.images'.runtime_platforms.kata-cc]
//!   snapshotter = "kata-cc"
//! ```
//!
//! Without the second table containerd 2.1 pulls for its default snapshotter, layers
//! and all. Instead of the first line, the transfer service can be given an
//! `unpack_config` for this snapshotter; the list replaces its default, so it has to
//! name the node's ordinary snapshotter as well. containerd 1.7 needs neither.
//!
//! containerd looks users up in an image's files before anybody else is asked; what it finds
//! here makes the guest look (`image_users`).
//!
//! Limits: image volumes (`volumes[].image`) have no files on the node; an image
//! that containerd knows only through another snapshotter, and whose layers it has
//! dropped since, has to be pulled again for this one.

mod image_users;
mod mounts;
pub mod names;
pub mod service;
pub mod store;
pub mod wire;
