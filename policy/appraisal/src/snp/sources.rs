//! Where certificates are found besides evidence: files on disk.
//!
//! They are a cache of the untrusted side. What they give is judged like what the
//! evidence carries, so a wrong answer costs availability and nothing else.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use agent_evidence::{MAX_CERTIFICATES_LEN, bytes::all_zero};

use super::{EndorsementLocator, Product, SigningKey, Tcb};
use crate::endorsements::{ContainerError, Endorsements};

/// A file of the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading failed.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds no certificates.
    #[error("{path} holds no certificates")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ContainerError,
    },
}

/// A folder of certificates laid out as AMD's key server answers requests:
///
/// | file | what |
/// |---|---|
/// | `vcek/{chip}/{bl}_{tee}_{snp}_{ucode}[_{fmc}]_vcek.der`, else `vcek/{chip}/vcek.der` | a chip's certificate; numbers in two decimal digits |
/// | `{vcek,vlek}/v1/{product}/cert_chain` | intermediates and root |
/// | `{vcek,vlek}/v1/{product}/crl` | revocation list |
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Files below this folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Everything the store has for a report. Files that do not exist are no error:
    /// what is missing refuses later, by name.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if a file exists and cannot be used.
    pub fn find(&self, wanted: &EndorsementLocator) -> Result<Endorsements, StoreError> {
        let products = match wanted.product {
            Some(product) => vec![product],
            None => Product::ALL.to_vec(),
        };
        let mut found = Endorsements::default();
        for path in leaf_paths(wanted, &products) {
            if self.add(&mut found, &path, Endorsements::add)? {
                break;
            }
        }
        let kind = match wanted.signing_key {
            Some(SigningKey::Vlek) => "vlek",
            _ => "vcek",
        };
        for product in products {
            let folder = Path::new(kind).join("v1").join(product.name());
            self.add(&mut found, &folder.join("cert_chain"), Endorsements::add)?;
            self.add(&mut found, &folder.join("crl"), Endorsements::add_crl)?;
        }
        Ok(found)
    }

    fn add(
        &self,
        found: &mut Endorsements,
        path: &Path,
        add: fn(&mut Endorsements, &[u8]) -> Result<(), ContainerError>,
    ) -> Result<bool, StoreError> {
        let path = self.root.join(path);
        let content = match read_bounded(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(StoreError::Read { path, source }),
        };
        match add(found, &content) {
            Ok(()) => Ok(true),
            Err(source) => Err(StoreError::Content { path, source }),
        }
    }
}

impl EndorsementLocator {
    /// Path of a request for the certificate to AMD's key server, if the report names
    /// a chip and a TCB of this product.
    pub fn kds_request(&self, product: Product) -> Option<String> {
        let tcb = Tcb::parse(product, self.tcb)?;
        let chip = self.chip_hex(product)?;
        let fmc = tcb
            .fmc
            .map(|fmc| format!("&fmcSPL={fmc}"))
            .unwrap_or_default();
        Some(format!(
            "/vcek/v1/{product}/{chip}?blSPL={}&teeSPL={}&snpSPL={}&ucodeSPL={}{fmc}",
            tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode
        ))
    }

    /// Where a [`Store`] keeps that certificate, below its folder.
    pub fn store_path(&self, product: Product) -> Option<PathBuf> {
        let tcb = Tcb::parse(product, self.tcb)?;
        let fmc = tcb.fmc.map(|fmc| format!("_{fmc:02}")).unwrap_or_default();
        let file = format!(
            "{:02}_{:02}_{:02}_{:02}{fmc}_vcek.der",
            tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode
        );
        Some(self.store_folder(product)?.join(file))
    }

    fn store_folder(&self, product: Product) -> Option<PathBuf> {
        Some(Path::new("vcek").join(self.chip_hex(product)?))
    }

    fn chip_hex(&self, product: Product) -> Option<String> {
        let (used, unused) = self.chip_id.0.split_at_checked(product.chip_id_len())?;
        (!all_zero(used) && all_zero(unused)).then(|| hex::encode(used))
    }
}

/// For the TCB first; a folder with one certificate need not name it.
fn leaf_paths(wanted: &EndorsementLocator, products: &[Product]) -> Vec<PathBuf> {
    products
        .iter()
        .flat_map(|product| {
            let unnamed = wanted
                .store_folder(*product)
                .map(|folder| folder.join("vcek.der"));
            [wanted.store_path(*product), unnamed]
        })
        .flatten()
        .collect()
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(MAX_CERTIFICATES_LEN).unwrap_or(u64::MAX);
    let mut content = Vec::new();
    File::open(path)?
        .take(limit + 1)
        .read_to_end(&mut content)?;
    Ok(content)
}
