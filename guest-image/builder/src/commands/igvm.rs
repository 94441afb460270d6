//! `igvm`: an IGVM file that starts an image.

use std::{fs, path::PathBuf};

use anyhow::Context;
use aws_lc_rs::rand::SystemRandom;
use clap::Args;
use guest_image_builder::{manifest::Manifest, measure::kernel_hashes};
use guest_image_measurement::{
    SevFeatures, Sha384Digest, VcpuCount, VcpuModel,
    id_block::{IdAuthentication, IdBlock, SigningKey},
    igvm::{Contents, Igvm, Loader, compose},
    launches::FIRMWARE,
};

use crate::Outcome;

/// Arguments of `igvm`.
#[derive(Args)]
pub(crate) struct IgvmArgs {
    /// Directory of the image
    image: PathBuf,
    /// File to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Firmware that starts it, a build for direct boot
    #[arg(long, value_name = "FILE", default_value = FIRMWARE)]
    firmware: PathBuf,
    /// Number of virtual processors: the VM must have as many
    #[arg(long, value_name = "N", default_value = "1", value_parser = vcpu_count)]
    vcpus: VcpuCount,
    /// Processor type; the default is what the shim launches
    #[arg(long, value_name = "TYPE", default_value = "EPYC-v4")]
    vcpu_type: VcpuModel,
    /// SEV features of the host, in hexadecimal; 0x21 is with debug swap
    #[arg(long, value_name = "BITS", default_value = "0x1")]
    sev_features: SevFeatures,
    /// Guest policy, in hexadecimal; 0x30000 allows simultaneous multithreading and no more
    #[arg(long, value_name = "BITS", default_value = "0x30000", value_parser = hexadecimal)]
    policy: u64,
    #[command(flatten)]
    identity: IdentityArgs,
}

/// What an ID block says, and who signs it.
#[derive(Args)]
struct IdentityArgs {
    /// Private key on P-384 in PKCS#8 PEM form that signs an ID block
    #[arg(long, value_name = "FILE")]
    id_key: Option<PathBuf>,
    /// Private key that signs the former
    #[arg(long, value_name = "FILE", requires = "id_key")]
    author_key: Option<PathBuf>,
    /// Family of guests, 16 bytes in hexadecimal [default: zeros]
    #[arg(long, value_name = "HEX", requires = "id_key", value_parser = id)]
    family_id: Option<[u8; 16]>,
    /// This guest, 16 bytes in hexadecimal [default: zeros]
    #[arg(long, value_name = "HEX", requires = "id_key", value_parser = id)]
    image_id: Option<[u8; 16]>,
    /// Version of this guest
    #[arg(long, value_name = "N", requires = "id_key", default_value = "0")]
    guest_svn: u32,
}

pub(crate) fn run(arguments: &IgvmArgs) -> anyhow::Result<Outcome> {
    let manifest = Manifest::read(&arguments.image)?;
    if let Some(difference) = super::difference(&manifest, &arguments.image)? {
        return Ok(difference);
    }
    let firmware = super::read_firmware(&arguments.firmware)?;
    let kernel = kernel_hashes(&manifest)?;
    let contents = Contents {
        firmware: &firmware,
        kernel: &kernel,
        signature: arguments.vcpu_type.signature(),
        features: arguments.sev_features,
        vcpus: arguments.vcpus,
        policy: arguments.policy,
    };
    let unsigned = compose(&contents, None)?;
    let digest = Igvm::parse(&unsigned)?.digest(Loader::Qemu)?;
    let file = match arguments.identity.sign(digest, arguments.policy)? {
        Some((block, signed)) => compose(&contents, Some((&block, &signed)))?,
        None => unsigned,
    };
    fs::write(&arguments.output, file)
        .with_context(|| format!("cannot write {}", arguments.output.display()))?;
    println!("{digest}");
    Ok(Outcome::Done)
}

impl IdentityArgs {
    /// The ID block for a launch, if there is a key to sign it.
    fn sign(
        &self,
        launch_digest: Sha384Digest,
        policy: u64,
    ) -> anyhow::Result<Option<(IdBlock, IdAuthentication)>> {
        let Some(path) = &self.id_key else {
            return Ok(None);
        };
        let random = SystemRandom::new();
        let key = |path: &PathBuf| {
            let text = super::read(path)?;
            let key = SigningKey::from_pem(&String::from_utf8_lossy(&text));
            key.with_context(|| format!("the key {}", path.display()))
        };
        let (id_key, author) = (key(path)?, self.author_key.as_ref().map(key).transpose()?);
        let block = IdBlock {
            launch_digest,
            family_id: self.family_id.unwrap_or_default(),
            image_id: self.image_id.unwrap_or_default(),
            guest_svn: self.guest_svn,
            policy,
        };
        let signed = IdAuthentication::sign(&block, &id_key, author.as_ref(), &random)?;
        Ok(Some((block, signed)))
    }
}

fn vcpu_count(text: &str) -> Result<VcpuCount, String> {
    let count = text.parse().ok().and_then(VcpuCount::new);
    count.ok_or_else(|| "give a number from 1 to 4096".to_owned())
}

fn hexadecimal(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|_| "give a hexadecimal number".to_owned())
}

fn id(text: &str) -> Result<[u8; 16], String> {
    let mut id = [0; 16];
    let decoded = hex::decode_to_slice(text, &mut id);
    decoded.map_err(|_| "give 32 hexadecimal digits".to_owned())?;
    Ok(id)
}
