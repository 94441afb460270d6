//! Any bytes that end a firmware image give firmware or an error, and can be measured.
#![no_main]

use guest_image_measurement::{
    Firmware, KernelHashes, Launch, SevFeatures, Sha256Digest, Sha384Digest, VcpuCount, VcpuModel,
    Vmm,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|tail: &[u8]| {
    let Ok(firmware) = Firmware::parse_tail(tail, Sha384Digest::new([0; 48])) else {
        return;
    };
    let kernel = KernelHashes::new(Sha256Digest::new([0; 32]), None, "");
    let launch = Launch {
        firmware: &firmware,
        kernel: Some(&kernel),
        signature: VcpuModel::Milan.signature(),
        features: SevFeatures::SNP,
        vmm: Vmm::Qemu,
    };
    let two = VcpuCount::new(2).expect("two is a count");
    let _ = launch.digest(two);
});
