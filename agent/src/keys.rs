//! The owners' key brokers, as initdata names them.
//!
//! Initdata is laid out only after its digest matched and its policy was taken, so no broker
//! is known before; and nobody asks it but who pulls an image by a permit.

use std::{error::Error as StdError, io, path::Path, sync::Arc};

use agent_keys::KeyProvider;
use agent_keys_broker::{Addresses, Brokers, Guest, Unusable};
use agent_measured::Measured;
use agent_protocol::initdata::DOCUMENT_FILE;
use tracing::warn;

use crate::{initdata::Hardware, told::Told};

const FILE: &str = "aa.toml";

/// The brokers that the entries of initdata in a directory name, if they name any. Of a name
/// that cannot be used comes a broker that has nothing: keys are then refused, not images
/// that need none.
pub(crate) fn broker(
    initdata: &Path,
    hardware: Hardware,
    log: Arc<Measured>,
) -> Option<Arc<dyn KeyProvider>> {
    let unusable = |told: Told, error: &(dyn StdError + 'static)| -> Option<Arc<dyn KeyProvider>> {
        let reason = told.to_string();
        warn!(%told, error, "no key broker");
        Some(Arc::new(Unusable(reason)))
    };
    let text = match std::fs::read_to_string(initdata.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return unusable(Told::new("initdata's aa.toml cannot be read"), &error),
    };
    match Addresses::parse(&text) {
        Ok(addresses) if addresses.is_empty() => None,
        Ok(addresses) => Some(Arc::new(Brokers::new(addresses, || {
            let log = Arc::clone(&log);
            Guest {
                hardware: hardware.clone(),
                log: Box::new(move || log.up_to_date().ok()),
                initdata: std::fs::read_to_string(initdata.join(DOCUMENT_FILE)).ok(),
            }
        }))),
        Err(error) => unusable(
            Told::new("`[token_configs]` of initdata's aa.toml cannot be used"),
            &error,
        ),
    }
}

#[cfg(test)]
mod tests {
    use agent_keys::{KeyError, ResourceUri};

    use super::*;

    fn of(aa: Option<&str>) -> Option<Arc<dyn KeyProvider>> {
        let initdata = tempfile::tempdir().unwrap();
        if let Some(text) = aa {
            std::fs::write(initdata.path().join(FILE), text).unwrap();
        }
        broker(initdata.path(), None, Arc::new(Measured::default()))
    }

    #[test]
    fn a_broker_is_had_where_one_is_named_and_a_wrong_name_gives_no_key() {
        assert!(of(None).is_none() && of(Some("")).is_none());
        let uri = ResourceUri::parse("kbs:///a/b/c").unwrap();
        let fetch = |aa: &str| of(Some(aa)).unwrap().fetch(&uri).unwrap_err();
        // There is no TEE here, and nothing is sent.
        let named = "[token_configs.kbs]\nurl = \"https://127.0.0.1:1\"\ncert = \"\"";
        assert!(matches!(
            fetch(named),
            KeyError::Refused { .. } | KeyError::Unreachable { .. }
        ));
        let plain = "[token_configs.kbs]\nurl = \"http://127.0.0.1:1\"";
        for wrong in ["a = 1", plain] {
            assert!(matches!(fetch(wrong), KeyError::Unreachable { .. }));
        }
    }
}
