//! The first process of a guest that asks the simulated processor for reports, prints them
//! on its console and ends: as much of an agent as a test of the processor needs.
//!
//! Each line is `report NONCE-BYTE HEX` or `certificates HEX`, or `failed WHY`.

use std::{fs, path::Path};

use agent_evidence::{ReportData, tee};
use nix::{
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

fn main() {
    // The firmware leaves its last line open.
    println!();
    if let Err(error) = ask() {
        println!("failed {error:#}");
    }
    println!("end");
    // As process 1: nothing else is there to be ended.
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    println!("failed to end: {error}");
}

fn ask() -> anyhow::Result<()> {
    for (kind, target) in [("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        if !Path::new(target).join("class").exists() {
            fs::create_dir_all(target)?;
            // The kernel may have mounted it.
            let _ = mount(
                Some(kind),
                target,
                Some(kind),
                MsFlags::empty(),
                None::<&str>,
            );
        }
    }
    let tee = tee::detect().ok_or_else(|| anyhow::anyhow!("there is no tee"))?;
    for byte in [1, 2] {
        let obtained = tee.obtain(&ReportData([byte; 64]))?;
        println!("report {byte} {}", hex::encode(&obtained.report));
        println!("certificates {}", hex::encode(&obtained.certificates));
    }
    Ok(())
}
