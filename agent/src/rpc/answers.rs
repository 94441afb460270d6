//! Answers about the guest itself.

use std::{fs, io};

use agent_protocol::{
    path::GuestPath,
    rpc::{agent, csi},
};
use agent_requests::{GetGuestDetails, GetVolumeStats, paths::STATE_ROOT};
use policy_engine::Permit;
use protobuf::MessageField;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use crate::version::VERSION;

const BLOCK_SIZE: &str = "/sys/devices/system/memory/block_size_bytes";
const PROBE: &str = "/sys/devices/system/memory/probe";

pub(super) fn guest_details(permit: &Permit<GetGuestDetails>) -> agent::GuestDetailsResponse {
    let request = permit.request();
    let block_size = || u64::from_str_radix(fs::read_to_string(BLOCK_SIZE).ok()?.trim(), 16).ok();
    let probe = || fs::exists(PROBE).unwrap_or(false);
    let names = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
    agent::GuestDetailsResponse {
        mem_block_size_bytes: request
            .memory_block_size
            .then(block_size)
            .flatten()
            .unwrap_or(0),
        support_mem_hotplug_probe: request.memory_probe && probe(),
        agent_details: MessageField::some(agent::AgentDetails {
            version: VERSION.into(),
            init_daemon: std::process::id() == 1,
            storage_handlers: names(&["ephemeral", "image_guest_pull", "local"]),
            supports_seccomp: true,
            extra_features: names(&["seccomp"]),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(super) fn volume_stats(
    permit: &Permit<GetVolumeStats>,
) -> io::Result<csi::VolumeStatsResponse> {
    let stats = stat_volume(&permit.request().path)?;
    let usage =
        |unit: csi::volume_usage::Unit, total: u64, free: u64, available: u64| csi::VolumeUsage {
            available,
            total,
            used: total.saturating_sub(free),
            unit: unit.into(),
            ..Default::default()
        };
    let bytes = |blocks: u64| blocks.saturating_mul(stats.f_frsize);
    Ok(csi::VolumeStatsResponse {
        usage: vec![
            usage(
                csi::volume_usage::Unit::BYTES,
                bytes(stats.f_blocks),
                bytes(stats.f_bfree),
                bytes(stats.f_bavail),
            ),
            usage(
                csi::volume_usage::Unit::INODES,
                stats.f_files,
                stats.f_ffree,
                stats.f_favail,
            ),
        ],
        volume_condition: MessageField::some(csi::VolumeCondition {
            abnormal: false,
            message: "OK".into(),
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn stat_volume(path: &GuestPath) -> io::Result<rustix::fs::StatVfs> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, STATE_ROOT, flags, Mode::empty())?;
    let below = path.below(STATE_ROOT).unwrap_or(".");
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let volume = openat2(&root, below, flags, Mode::empty(), resolve)?;
    Ok(rustix::fs::fstatvfs(&volume)?)
}
