//! Which devices a container can open: a fixed list, held by a program on its cgroup.
//!
//! A device node is a name for a device of the guest's one kernel, and anybody can bring
//! names: an image's layer, a workload that may make nodes. So the names are left alone,
//! and opening is judged by the kernel for every process of the container
//! (`BPF_PROG_TYPE_CGROUP_DEVICE`; `linux/bpf.h`).

#![expect(
    unsafe_code,
    reason = "bpf has no safe form: what its argument points to depends on a command"
)]

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::{errno::Errno, libc};

use crate::cgroup::Cgroup;

/// A character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    major: u32,
    /// Any if none is given.
    minor: Option<u32>,
}

const fn device(major: u32, minor: u32) -> Device {
    Device {
        major,
        minor: Some(minor),
    }
}

/// What every container may open (Linux' `devices.txt`): null, zero, full, random, urandom,
/// tty, ptmx, and the terminals that ptmx makes.
pub(crate) const ALLOWED: [Device; 8] = [
    device(1, 3),
    device(1, 5),
    device(1, 7),
    device(1, 8),
    device(1, 9),
    device(5, 0),
    device(5, 2),
    Device {
        major: 136,
        minor: None,
    },
];
/// The same and `/dev/net/tun`, for containers that administrate the pod's network.
pub(crate) const ALLOWED_WITH_TUN: [Device; 9] = {
    let [a, b, c, d, e, f, g, h] = ALLOWED;
    [a, b, c, d, e, f, g, h, device(10, 200)]
};

/// Lets the processes of a cgroup open these devices and no others. Making nodes is free:
/// a node that cannot be opened is a name.
///
/// # Errors
///
/// When the kernel does not take the program.
pub(crate) fn allow_only(cgroup: &Cgroup, devices: &[Device]) -> io::Result<()> {
    let program = load(&program(devices))?;
    let directory = File::open(cgroup.file("."))?;
    attach(&directory, &program)
}

/// One instruction of eBPF: operation, registers (source above destination), jump, value.
type Instruction = (u8, u8, i16, i32);

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const JUMP_IF_EQUAL: u8 = 0x15;
const EXIT: u8 = 0x95;

const fn registers(destination: u8, source: u8) -> u8 {
    source << 4 | destination
}

/// `BPF_DEVCG_DEV_CHAR` and `BPF_DEVCG_ACC_MKNOD`.
const CHARACTER: i32 = 2;
const MAKE_NODE: i32 = 1;

/// Reads `struct bpf_cgroup_dev_ctx`: what is asked (its low half says of which type, its
/// high half says what for), the major and the minor number.
fn program(devices: &[Device]) -> Vec<Instruction> {
    const PURPOSE: u8 = 2;
    const TYPE: u8 = 3;
    const MAJOR: u8 = 4;
    const MINOR: u8 = 5;
    let mut program = vec![
        (LOAD_WORD, registers(PURPOSE, 1), 0, 0),
        (MOVE_REGISTER, registers(TYPE, PURPOSE), 0, 0),
        (AND, TYPE, 0, 0xffff),
        (SHIFT_RIGHT, PURPOSE, 0, 16),
        (LOAD_WORD, registers(MAJOR, 1), 4, 0),
        (LOAD_WORD, registers(MINOR, 1), 8, 0),
        // Only to make a node: yes.
        (JUMP_UNLESS_EQUAL, PURPOSE, 2, MAKE_NODE),
        (MOVE, 0, 0, 1),
        (EXIT, 0, 0, 0),
        // No character device: no.
        (JUMP_IF_EQUAL, TYPE, 2, CHARACTER),
        (MOVE, 0, 0, 0),
        (EXIT, 0, 0, 0),
    ];
    for Device { major, minor } in devices {
        let after = if minor.is_some() { 3 } else { 2 };
        program.push((JUMP_UNLESS_EQUAL, MAJOR, after, major.cast_signed()));
        if let Some(minor) = minor {
            program.push((JUMP_UNLESS_EQUAL, MINOR, 2, minor.cast_signed()));
        }
        program.extend([(MOVE, 0, 0, 1), (EXIT, 0, 0, 0)]);
    }
    program.extend([(MOVE, 0, 0, 0), (EXIT, 0, 0, 0)]);
    program
}

fn bytes(program: &[Instruction]) -> Vec<u8> {
    program
        .iter()
        .flat_map(|(operation, registers, jump, value)| {
            let [j0, j1] = jump.to_ne_bytes();
            let [v0, v1, v2, v3] = value.to_ne_bytes();
            [*operation, *registers, j0, j1, v0, v1, v2, v3]
        })
        .collect()
}

/// The part of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instructions: u32,
    first: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}
const _: () = assert!(size_of::<LoadAttributes>() == 48);

/// The part of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
#[derive(Default)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}
const _: () = assert!(size_of::<AttachAttributes>() == 16);

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let text = bytes(program);
    let attributes = LoadAttributes {
        program_type: TYPE_CGROUP_DEVICE,
        instructions: u32::try_from(program.len()).map_err(io::Error::other)?,
        first: text.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the kernel reads the attributes, the instructions and the license, all of which
    // live until it returns; the new descriptor belongs to nobody else.
    unsafe {
        let number = libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            &raw const attributes,
            size_of::<LoadAttributes>(),
        );
        let number = Errno::result(number)?;
        Ok(OwnedFd::from_raw_fd(
            i32::try_from(number).map_err(io::Error::other)?,
        ))
    }
}

fn attach(directory: &File, program: &OwnedFd) -> io::Result<()> {
    let attributes = AttachAttributes {
        target: directory.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: ATTACH_CGROUP_DEVICE,
        // Nothing below may have another program instead.
        flags: 0,
    };
    // SAFETY: the kernel reads the attributes, which live until it returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_ATTACH,
            &raw const attributes,
            size_of::<AttachAttributes>(),
        )
    };
    Errno::result(result).map(drop).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u32 = 1;
    const CHAR: u32 = 2;
    const MKNOD: u32 = 1;
    const READ: u32 = 2;
    const WRITE: u32 = 4;

    /// Does what the kernel does with these few operations.
    fn verdict(devices: &[Device], (kind, purpose): (u32, u32), major: u32, minor: u32) -> bool {
        let context = [purpose << 16 | kind, major, minor];
        let program = program(devices);
        let mut registers = [0u64; 16];
        let mut at = 0i64;
        for _ in 0..1000 {
            let (operation, place, jump, value) = program[usize::try_from(at).unwrap()];
            let (to, from) = (usize::from(place & 15), usize::from(place >> 4));
            at += 1;
            match operation {
                LOAD_WORD => {
                    registers[to] = context[usize::try_from(jump).unwrap() / 4].into();
                }
                MOVE => registers[to] = u64::try_from(value).unwrap(),
                MOVE_REGISTER => registers[to] = registers[from],
                AND => registers[to] &= u64::try_from(value).unwrap(),
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_UNLESS_EQUAL if registers[to] != u64::try_from(value).unwrap() => {
                    at += i64::from(jump);
                }
                JUMP_IF_EQUAL if registers[to] == u64::try_from(value).unwrap() => {
                    at += i64::from(jump);
                }
                JUMP_UNLESS_EQUAL | JUMP_IF_EQUAL => {}
                EXIT => return registers[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
        panic!("the program does not end");
    }

    #[test]
    fn listed_devices_can_be_opened_and_all_others_cannot() {
        let listed = |major, minor| {
            ALLOWED
                .iter()
                .any(|one| one.major == major && one.minor.is_none_or(|own| own == minor))
        };
        for major in (0..300).chain([511, 4095]) {
            for minor in (0..260).chain([1 << 19]) {
                for purpose in [READ, WRITE, READ | WRITE, READ | MKNOD] {
                    let found = verdict(&ALLOWED, (CHAR, purpose), major, minor);
                    assert_eq!(found, listed(major, minor), "{major}:{minor} {purpose}");
                }
                assert!(!verdict(&ALLOWED, (BLOCK, READ), major, minor));
            }
        }
    }

    #[test]
    fn nodes_can_be_made_and_not_opened() {
        assert!(verdict(&ALLOWED, (BLOCK, MKNOD), 254, 0));
        assert!(!verdict(&ALLOWED, (BLOCK, READ), 254, 0));
    }

    #[test]
    fn the_tun_device_needs_to_be_listed() {
        assert!(verdict(&ALLOWED_WITH_TUN, (CHAR, READ | WRITE), 10, 200));
        assert!(!verdict(&ALLOWED, (CHAR, READ | WRITE), 10, 200));
    }
}
