//! Plays AMD's secure processor on nodes that have none, for tests of everything above it.
//!
//! The shim starts a guest with `tee = "simulated"`: it writes the command line of a genuine
//! SEV-SNP launch and runs `simulated-psp qemu … -- ARGUMENTS` as the hypervisor. That
//! program
//!
//! 1. takes the command line apart ([`launch`]),
//! 2. reads kernel, initrd and firmware once, measures them with `guest-image-measurement`,
//!    and refuses what the firmware of the processor would refuse ([`processor`]),
//! 3. starts `simulated-psp serve`, which signs reports for the guest ([`serve`]) and ends
//!    with QEMU, and
//! 4. becomes QEMU, in its own process: without the options of SEV-SNP, with the very bytes
//!    that were measured, and with a virtio serial port behind which the processor sits.
//!
//! The guest asks through `agent_evidence::tee::SimulatedTee`, which only builds with the feature
//! `simulated-tee` have. Reports, certificates and revocation lists have AMD's formats and
//! are signed under a root made once for each directory ([`authority`]); `kata-cc verify --roots
//! DIRECTORY/roots.pem` takes that root.
//! [`kds`] serves the same certificates as AMD's key server does.
//!
//! What it does not play: memory encryption, and the firmware. The guest is not protected, and
//! starts without OVMF, which refuses to run outside of SEV.
#![allow(clippy::missing_errors_doc, reason = "all errors are anyhow's")]

pub mod authority;
pub mod kds;
pub mod launch;
pub mod processor;
pub mod run;
pub mod serve;
