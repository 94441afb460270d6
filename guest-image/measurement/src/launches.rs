//! The flags by which the tools' users say which launches are genuine.

use std::path::PathBuf;

use crate::{SevFeatures, VcpuCounts, VcpuModel, igvm::Loader};

/// Debian's firmware for direct boot (package `ovmf-amdsev`).
pub const FIRMWARE: &str = "/usr/share/ovmf/OVMF.amdsev.fd";

/// Which launches of an image are genuine.
#[derive(Debug, clap::Args)]
pub struct Launches {
    /// Firmware that starts the image, a build for direct boot
    #[arg(long, value_name = "FILE", default_value = FIRMWARE)]
    pub firmware: PathBuf,
    /// Numbers of virtual processors, such as 1-4,8
    #[arg(long, value_name = "LIST", default_value = "1-8")]
    pub vcpus: VcpuCounts,
    /// Processor type (repeatable); the shim's is EPYC-v4
    #[arg(long, value_name = "TYPE", default_value = "EPYC-v4")]
    pub vcpu_type: Vec<VcpuModel>,
    /// SEV features of the host, in hexadecimal (repeatable); 0x21 is with debug swap
    #[arg(long, value_name = "BITS", default_value = "0x1")]
    pub sev_features: Vec<SevFeatures>,
    /// Who loads an IGVM file: qemu, or file-order for loaders that keep to the definitions
    #[arg(long, value_name = "LOADER", default_value = "qemu")]
    pub loader: Loader,
}
