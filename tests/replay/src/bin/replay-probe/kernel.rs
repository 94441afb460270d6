//! What the kernel says of processes, their limits, settings and the network.

use std::fs;

use crate::{Facts, read, said};

/// Fields of `status` that are compared.
const STATUS: [&str; 13] = [
    "Uid",
    "Gid",
    "Groups",
    "Umask",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "SigIgn",
    "SigBlk",
];
const SETTINGS: [&str; 5] = [
    "kernel/hostname",
    "kernel/shm_rmid_forced",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/ping_group_range",
    "net/ipv4/ip_forward",
];

/// The probe itself: what an exec gets.
pub(crate) fn process(facts: &mut Facts) {
    status("self", "exec", facts);
    limits(facts);
    let directory = std::env::current_dir().map(|path| path.display().to_string());
    let directory = directory.unwrap_or_else(said);
    facts.insert("exec.directory".to_owned(), directory);
    for (name, value) in std::env::vars_os() {
        let value = value.to_string_lossy().into_owned();
        facts.insert(format!("exec.env.{}", name.to_string_lossy()), value);
    }
    facts.insert(
        "exec.oom_score_adj".to_owned(),
        read("/proc/self/oom_score_adj").trim().to_owned(),
    );
}

/// The container's own process.
pub(crate) fn first_process(facts: &mut Facts) {
    status("1", "first", facts);
    let environment = read("/proc/1/environ");
    for one in environment.split_terminator('\0') {
        let (name, value) = one.split_once('=').unwrap_or((one, ""));
        facts.insert(format!("first.env.{name}"), value.to_owned());
    }
    for (name, link) in [("directory", "cwd"), ("stdin", "fd/0")] {
        let target = fs::read_link(format!("/proc/1/{link}"));
        let target = target.map_or_else(said, |path| path.display().to_string());
        // Of a pipe the number is chance.
        let target = target.split('[').next().unwrap_or_default().to_owned();
        facts.insert(format!("first.{name}"), target);
    }
}

fn status(process: &str, name: &str, facts: &mut Facts) {
    let text = read(&format!("/proc/{process}/status"));
    for line in text.lines() {
        let Some((field, value)) = line.split_once(':') else {
            continue;
        };
        if STATUS.contains(&field) {
            let words: Vec<_> = value.split_whitespace().collect();
            let value = if field == "SigIgn" {
                common_signals(words.first().copied().unwrap_or_default())
            } else {
                words.join(" ")
            };
            facts.insert(format!("{name}.{field}"), value);
        }
    }
}

/// Without those from 32 on: the C library's own, and whatever the node's programs left.
fn common_signals(mask: &str) -> String {
    let mask = u64::from_str_radix(mask, 16).unwrap_or_default();
    format!("{:08x}", mask & 0x7fff_ffff)
}

/// May it have a user namespace? A filter of system calls says no. The probe has it then.
pub(crate) fn user_namespace(facts: &mut Facts) {
    let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
    let made = made.map_or_else(|error| error.desc().to_owned(), |()| "yes".to_owned());
    facts.insert("exec.user-namespace".to_owned(), made);
}

/// `Max open files  1024  4096  files`
fn limits(facts: &mut Facts) {
    for line in read("/proc/self/limits").lines().skip(1) {
        let (name, rest) = line.split_at_checked(26).unwrap_or((line, ""));
        let mut words = rest.split_whitespace();
        let (soft, hard) = (words.next(), words.next());
        let value = format!("{} {}", soft.unwrap_or_default(), hard.unwrap_or_default());
        let name = name.trim().trim_start_matches("Max ").replace(' ', "-");
        facts.insert(format!("exec.limit.{name}"), value);
    }
}

/// The command lines of all processes but the probe's.
pub(crate) fn processes(facts: &mut Facts) {
    let own = std::process::id().to_string();
    let mut lines = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != own && name.bytes().all(|byte| byte.is_ascii_digit()) {
            // It may have ended by now.
            let line = fs::read_to_string(format!("/proc/{name}/cmdline"));
            let line = line.unwrap_or_default();
            lines.push(line.trim_end_matches('\0').replace('\0', " "));
        }
    }
    // A loop of a shell sleeps most of the time, but not always.
    lines.retain(|line| !line.is_empty() && !line.starts_with("sleep 0."));
    lines.sort();
    facts.insert("processes".to_owned(), lines.join("; "));
}

pub(crate) fn settings(facts: &mut Facts) {
    for name in SETTINGS {
        let value = read(&format!("/proc/sys/{name}")).trim().replace('\t', " ");
        facts.insert(format!("sysctl.{}", name.replace('/', ".")), value);
    }
    let group = "/sys/fs/cgroup";
    let memory = first(&[
        &format!("{group}/memory.max"),
        &format!("{group}/memory/memory.limit_in_bytes"),
    ]);
    // Version 1 spells "none" as the largest number of pages.
    let none = memory.parse::<u64>().is_ok_and(|limit| limit > 1 << 60);
    let memory = if none { "max".to_owned() } else { memory };
    facts.insert("limit.memory".to_owned(), memory);
    facts.insert("limit.cpu".to_owned(), cpu(group));
}

fn cpu(group: &str) -> String {
    let one = first(&[&format!("{group}/cpu.max")]);
    if !one.is_empty() {
        return one;
    }
    let version_1 = |file: &str| {
        first(&[
            &format!("{group}/cpu/cpu.cfs_{file}_us"),
            &format!("{group}/cpu,cpuacct/cpu.cfs_{file}_us"),
        ])
    };
    let (quota, period) = (version_1("quota"), version_1("period"));
    let quota = if quota == "-1" { "max" } else { &quota };
    format!("{quota} {period}")
}

/// The first of the files that can be read.
fn first(paths: &[&str]) -> String {
    let mut found = paths
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok());
    found.next().unwrap_or_default().trim().to_owned()
}

pub(crate) fn network(facts: &mut Facts) {
    for entry in fs::read_dir("/sys/class/net")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mtu = read(&format!("/sys/class/net/{name}/mtu"));
        facts.insert(format!("network.{name}.mtu"), mtu.trim().to_owned());
    }
    for one in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let v4 = |address: Option<nix::sys::socket::SockaddrStorage>| {
            let address = address?;
            address.as_sockaddr_in().map(|v4| v4.ip().to_string())
        };
        if let (Some(address), Some(mask)) = (v4(one.address), v4(one.netmask)) {
            let name = format!("network.{}.address", one.interface_name);
            facts.insert(name, format!("{address} {mask}"));
        }
    }
    let routes = read("/proc/net/route");
    for line in routes.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        if let [interface, to, by, _, _, _, _, mask, ..] = words.as_slice() {
            let name = format!("network.route.{to}.{mask}");
            facts.insert(name, format!("{by} {interface}"));
        }
    }
    for file in ["hosts", "resolv.conf", "hostname"] {
        facts.insert(format!("network.{file}"), read(&format!("/etc/{file}")));
    }
}
