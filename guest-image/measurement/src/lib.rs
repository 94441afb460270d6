//! What a genuine VM reports about what it booted, computed before anything runs.
//!
//! AMD's secure processor hashes every page that the VM starts with into a *launch digest*
//! and signs it in each attestation report. Everything that goes into it is known to whoever
//! builds the guest: the firmware, the digests of kernel, initrd and command line, and the
//! state in which each virtual processor starts. So an owner computes the value here, on a
//! machine of their own, and refuses any VM that reports another one.
//!
//! All functions are pure. Firmware and ID authentication pages may come from anywhere, so
//! their parsers take any bytes and answer with an error that names the place.
//!
//! Sources: *SEV Secure Nested Paging Firmware ABI Specification* (AMD 56860), chapter 8
//! (`SNP_LAUNCH_START`, `_UPDATE`, `_FINISH`); *AMD64 Architecture Programmer's Manual
//! Volume 2* (AMD 24593), appendix B (VMSA); OVMF's `OvmfPkg/ResetVector` for the firmware's
//! table; QEMU's `target/i386/sev.c` for what is loaded where.
//!
//! Start with [`Launch`], or with [`igvm`] for files that hold all that is launched.
//! [`explain`] answers the question that follows a mismatch.
//! Left out: the initial states of VMMs other than QEMU and EC2.
#![forbid(unsafe_code)]

mod bytes;
mod digest;
pub mod explain;
mod firmware;
mod guid;
pub mod id_block;
pub mod igvm;
mod image;
mod kernel_hashes;
mod launch;
#[cfg(feature = "arguments")]
pub mod launches;
mod page;
mod vcpu;
mod vmsa;

pub use digest::{ParseDigestError, Sha256Digest, Sha384Digest};
pub use firmware::{Firmware, FirmwareError, Section, SectionKind};
pub use image::{GuestImage, GuestImageError, INITRD, KERNEL, MANIFEST, OtherFile};
pub use kernel_hashes::KernelHashes;
pub use launch::{Launch, MAX_VCPUS, MeasureError, ParseCountsError, VcpuCount, VcpuCounts};
pub use page::{PAGE_BYTES, Page};
pub use vcpu::{ParseVcpuError, VcpuModel, VcpuSignature};
pub use vmsa::{ParseFeaturesError, SevFeatures, Vmm, vmsa_page};
