//! Which protection from the host the VM gets, and what the launch binds.
//!
//! Whether the node can give it is for the hypervisor to say. A wrong value here
//! shows in the report, and whoever verifies the report refuses it.

use std::path::PathBuf;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use shim_configuration::{Qemu, Tee};
use shim_hypervisor::{Confidential, Identity, SevSnp, VmConfig};
use thiserror::Error;

/// Where the author's key stands in the ID authentication information, and its size
/// (AMD 56860, `ID_AUTH_INFO`); all zero if there is none.
const AUTHOR_KEY: std::ops::Range<usize> = 0x880..0x880 + 0x404;

/// Why the wanted protection cannot be described to the hypervisor.
#[derive(Debug, Error)]
pub(crate) enum TeeError {
    /// One without the other.
    #[error("snp_id_block and snp_id_auth of [hypervisor.qemu] must both be set, or neither")]
    HalfIdentity,
    /// The value does not have the length that the processor takes.
    #[error("{key} of [hypervisor.qemu] is not {bytes} bytes in base64")]
    Identity {
        /// The key.
        key: &'static str,
        /// The size it must have.
        bytes: usize,
    },
}

/// The protection of one VM.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Protection {
    confidential: Confidential,
    firmware: Option<PathBuf>,
}

impl Protection {
    /// Reads the configuration.
    ///
    /// # Errors
    ///
    /// [`TeeError`] names the key.
    pub(crate) fn of(qemu: &Qemu, host_data: [u8; 32]) -> Result<Self, TeeError> {
        let snp = || -> Result<SevSnp, TeeError> {
            Ok(SevSnp {
                host_data,
                policy: qemu.snp_guest_policy.into(),
                identity: identity(qemu)?,
            })
        };
        let confidential = match qemu.tee {
            Tee::None => Confidential::None,
            Tee::Snp => Confidential::SevSnp(snp()?),
            Tee::Simulated => Confidential::Simulated(snp()?),
        };
        let measured = confidential != Confidential::None && !qemu.firmware.as_os_str().is_empty();
        Ok(Self {
            confidential,
            firmware: measured.then(|| qemu.firmware.clone()),
        })
    }

    /// Has the VM started with this protection.
    pub(crate) fn apply(self, config: &mut VmConfig) {
        config.confidential = self.confidential;
        config.firmware = self.firmware;
    }
}

fn identity(qemu: &Qemu) -> Result<Option<Identity>, TeeError> {
    match (given(&qemu.snp_id_block), given(&qemu.snp_id_auth)) {
        (None, None) => Ok(None),
        (Some(block), Some(authentication)) => {
            let authentication = bytes::<4096>("snp_id_auth", authentication)?;
            let author_key = authentication
                .get(AUTHOR_KEY)
                .is_some_and(|key| key.iter().any(|&byte| byte != 0));
            Ok(Some(Identity {
                block: *bytes("snp_id_block", block)?,
                authentication,
                author_key,
            }))
        }
        (Some(_), None) | (None, Some(_)) => Err(TeeError::HalfIdentity),
    }
}

/// The value of a key, which is empty where it is not given.
fn given(value: &str) -> Option<&str> {
    Some(value).filter(|value| !value.is_empty())
}

fn bytes<const N: usize>(key: &'static str, text: &str) -> Result<Box<[u8; N]>, TeeError> {
    let decoded = STANDARD.decode(text).unwrap_or_default();
    decoded
        .try_into()
        .map_err(|_| TeeError::Identity { key, bytes: N })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qemu(tee: Tee) -> Qemu {
        Qemu {
            tee,
            firmware: "/fw".into(),
            ..Qemu::default()
        }
    }

    #[test]
    fn without_a_tee_nothing_is_asked_for() {
        let protection = Protection::of(&qemu(Tee::None), [7; 32]).unwrap();
        assert_eq!(protection.confidential, Confidential::None);
        assert_eq!(protection.firmware, None);
    }

    #[test]
    fn snp_takes_host_data_policy_and_firmware() {
        let mut config = VmConfig::new("id", "/nonexistent".into());
        let protection = Protection::of(&qemu(Tee::Snp), [7; 32]).unwrap();
        protection.apply(&mut config);
        assert_eq!(config.firmware, Some("/fw".into()));
        let expected = SevSnp {
            host_data: [7; 32],
            policy: 0x30000,
            identity: None,
        };
        assert_eq!(config.confidential, Confidential::SevSnp(expected));
    }

    #[test]
    fn a_simulated_processor_is_asked_for_the_same() {
        let simulated = Protection::of(&qemu(Tee::Simulated), [7; 32]).unwrap();
        let genuine = Protection::of(&qemu(Tee::Snp), [7; 32]).unwrap();
        assert_eq!(simulated.firmware, genuine.firmware);
        let (Confidential::Simulated(simulated), Confidential::SevSnp(genuine)) =
            (simulated.confidential, genuine.confidential)
        else {
            panic!("other protections")
        };
        assert_eq!(simulated, genuine);
    }

    fn identified(block: &[u8], authentication: &[u8]) -> Result<Protection, TeeError> {
        let qemu = Qemu {
            snp_id_block: STANDARD.encode(block),
            snp_id_auth: STANDARD.encode(authentication),
            ..qemu(Tee::Snp)
        };
        Protection::of(&qemu, [0; 32])
    }

    #[test]
    fn an_id_block_comes_with_its_authentication_at_full_size() {
        let mut authentication = [0; 4096];
        for author_key in [false, true] {
            authentication[0x880] = u8::from(author_key);
            let protection = identified(&[1; 96], &authentication).unwrap();
            let Confidential::SevSnp(snp) = protection.confidential else {
                panic!("not snp")
            };
            let identity = snp.identity.unwrap();
            assert_eq!(identity.block, [1; 96]);
            assert_eq!(identity.author_key, author_key);
        }
        for (block, authentication, error) in [
            (96, 0, "both"),
            (0, 4096, "both"),
            (95, 4096, "snp_id_block"),
            (96, 4095, "snp_id_auth"),
        ] {
            let refused = identified(&vec![1; block], &vec![1; authentication]).unwrap_err();
            assert!(refused.to_string().contains(error), "{refused}");
        }
    }
}
