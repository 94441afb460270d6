//! The certificate that endorses a report, and the chain above it (AMD 57230).
//!
//! Kind and product are read from names first and then held against each other:
//! leaf name, issuer name, product name, structVersion and root must all agree.

use std::fmt;

use serde::Serialize;

use super::{Product, Roots, Tcb};
use crate::{
    endorsements::Endorsements,
    x509::{Certificate, Der, DerError, IA5_STRING, OCTET_STRING, PublicKey},
};

/// The two keys that sign reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SigningKey {
    /// Of one chip, at one TCB.
    Vcek,
    /// Of a cloud provider, loaded into its chips.
    Vlek,
}

/// Size of the RSA keys of root and intermediates, in bits.
pub(crate) const AUTHORITY_KEY_BITS: usize = 4096;

/// What the AMD extensions of a leaf certificate say.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) kind: SigningKey,
    pub(crate) key: [u8; 97],
    pub(crate) product: Product,
    pub(crate) tcb: Tcb,
    /// In a VCEK: 64 bytes, 8 from Turin on.
    pub(crate) hardware_id: Option<Vec<u8>>,
    /// In a VLEK: who may load the key.
    pub(crate) provider: Option<String>,
}

/// Leaf, intermediate and root, signed by each other up to a pinned root.
pub(crate) struct Endorser<'a> {
    pub(crate) leaf: &'a Certificate,
    pub(crate) issuer: &'a Certificate,
    pub(crate) root: &'a Certificate,
}

/// A leaf certificate does not say what its kind must say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeafError {
    #[error("key is not on p-384")]
    Key,
    #[error("extension {0} is missing")]
    Missing(&'static str),
    #[error("extension {0} is in a certificate of another kind")]
    Misplaced(&'static str),
    #[error("extension {0} is malformed: {1}")]
    Malformed(&'static str, DerError),
    #[error("extension {0} has the value {1}")]
    Value(&'static str, String),
}

/// Content octets of 1.3.6.1.4.1.3704.1, with the last arcs to follow.
const AMD: [u8; 8] = [0x2B, 0x06, 0x01, 0x04, 0x01, 0x9C, 0x78, 0x01];

const STRUCT_VERSION: (&str, &[u8]) = ("structVersion", &[1]);
const PRODUCT_NAME: (&str, &[u8]) = ("productName", &[2]);
const BL_SPL: (&str, &[u8]) = ("blSPL", &[3, 1]);
const TEE_SPL: (&str, &[u8]) = ("teeSPL", &[3, 2]);
const SNP_SPL: (&str, &[u8]) = ("snpSPL", &[3, 3]);
const SPL_4: (&str, &[u8]) = ("spl4", &[3, 4]);
const RESERVED_SPL: [(&str, &[u8]); 3] = [("spl5", &[3, 5]), ("spl6", &[3, 6]), ("spl7", &[3, 7])];
const UCODE_SPL: (&str, &[u8]) = ("ucodeSPL", &[3, 8]);
const FMC_SPL: (&str, &[u8]) = ("fmcSPL", &[3, 9]);
const HARDWARE_ID: (&str, &[u8]) = ("hwID", &[4]);
const CSP_ID: (&str, &[u8]) = ("cspID", &[5]);

impl SigningKey {
    /// KEY_INFO.SIGNING_KEY: 0 and 1; 7 says that nothing signed.
    pub(crate) const fn of_selector(selector: u32) -> Option<Self> {
        match selector {
            0 => Some(Self::Vcek),
            1 => Some(Self::Vlek),
            _ => None,
        }
    }

    /// Common name of the certificate.
    pub(crate) const fn subject(self) -> &'static str {
        match self {
            Self::Vcek => "SEV-VCEK",
            Self::Vlek => "SEV-VLEK",
        }
    }

    pub(crate) fn of_subject(name: &str) -> Option<Self> {
        [Self::Vcek, Self::Vlek]
            .into_iter()
            .find(|kind| kind.subject() == name)
    }

    /// Common name of the intermediate that issues it.
    pub(crate) fn issuer(self, product: Product) -> String {
        match self {
            Self::Vcek => format!("SEV-{product}"),
            Self::Vlek => format!("SEV-VLEK-{product}"),
        }
    }
}

impl fmt::Display for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
        })
    }
}

impl Leaf {
    /// Reads the extensions of a certificate whose name says it is of this kind.
    pub(crate) fn read(certificate: &Certificate, kind: SigningKey) -> Result<Self, LeafError> {
        let PublicKey::P384(key) = certificate.key else {
            return Err(LeafError::Key);
        };
        let name = ia5(certificate, PRODUCT_NAME)?;
        let product = Product::of_certificate(&name)
            .ok_or_else(|| LeafError::Value(PRODUCT_NAME.0, name.clone()))?;
        exactly(certificate, STRUCT_VERSION, product.certificate_version())?;
        for reserved in RESERVED_SPL {
            exactly(certificate, reserved, 0)?;
        }
        let fmc = if product.has_fmc() {
            absent(certificate, SPL_4)?;
            Some(small_integer(certificate, FMC_SPL)?)
        } else {
            absent(certificate, FMC_SPL)?;
            exactly(certificate, SPL_4, 0)?;
            None
        };
        let tcb = Tcb {
            fmc,
            bootloader: small_integer(certificate, BL_SPL)?,
            tee: small_integer(certificate, TEE_SPL)?,
            snp: small_integer(certificate, SNP_SPL)?,
            microcode: small_integer(certificate, UCODE_SPL)?,
        };
        let (hardware_id, provider) = match kind {
            SigningKey::Vcek => {
                absent(certificate, CSP_ID)?;
                (Some(hardware_id(certificate, product)?), None)
            }
            SigningKey::Vlek => {
                absent(certificate, HARDWARE_ID)?;
                (None, Some(ia5(certificate, CSP_ID)?))
            }
        };
        Ok(Self {
            kind,
            key,
            product,
            tcb,
            hardware_id,
            provider,
        })
    }
}

impl<'a> Endorser<'a> {
    /// Finds the issuer among the carried and the known intermediates, and the root
    /// among the pinned ones only.
    pub(crate) fn find(
        leaf: &'a Certificate,
        (kind, product): (SigningKey, Product),
        endorsements: &'a Endorsements,
        roots: &'a Roots,
    ) -> Option<Self> {
        let root = roots.of(product)?;
        if !root.key.is_rsa_of(AUTHORITY_KEY_BITS) {
            return None;
        }
        let name = kind.issuer(product);
        let issuer = endorsements
            .certificates
            .iter()
            .chain(&roots.intermediates)
            .filter(|candidate| candidate.subject.common_name == name)
            .filter(|candidate| candidate.key.is_rsa_of(AUTHORITY_KEY_BITS))
            .find(|candidate| candidate.is_issued_by(root) && leaf.is_issued_by(candidate))?;
        Some(Self { leaf, issuer, root })
    }

    pub(crate) fn certificates(&self) -> [&'a Certificate; 3] {
        [self.leaf, self.issuer, self.root]
    }
}

fn required<'a>(
    certificate: &'a Certificate,
    (name, arcs): (&'static str, &[u8]),
) -> Result<&'a [u8], LeafError> {
    value(certificate, arcs).ok_or(LeafError::Missing(name))
}

fn value<'a>(certificate: &'a Certificate, arcs: &[u8]) -> Option<&'a [u8]> {
    certificate.extension(&[&AMD, arcs].concat())
}

fn absent(certificate: &Certificate, (name, arcs): (&'static str, &[u8])) -> Result<(), LeafError> {
    match value(certificate, arcs) {
        None => Ok(()),
        Some(_) => Err(LeafError::Misplaced(name)),
    }
}

/// An INTEGER from 0 to 255; from 128 on it takes two content octets.
fn small_integer(certificate: &Certificate, which: (&'static str, &[u8])) -> Result<u8, LeafError> {
    let malformed = |error| LeafError::Malformed(which.0, error);
    let mut der = Der::new(required(certificate, which)?);
    let digits = der.unsigned().map_err(malformed)?;
    der.finish().map_err(malformed)?;
    match digits {
        [] => Ok(0),
        [value] => Ok(*value),
        _ => Err(LeafError::Value(which.0, hex::encode(digits))),
    }
}

fn exactly(
    certificate: &Certificate,
    which: (&'static str, &[u8]),
    wanted: u8,
) -> Result<(), LeafError> {
    match small_integer(certificate, which)? {
        found if found == wanted => Ok(()),
        found => Err(LeafError::Value(which.0, found.to_string())),
    }
}

fn ia5(certificate: &Certificate, which: (&'static str, &[u8])) -> Result<String, LeafError> {
    let malformed = |error| LeafError::Malformed(which.0, error);
    let mut der = Der::new(required(certificate, which)?);
    let text = der.content(IA5_STRING).map_err(malformed)?;
    der.finish().map_err(malformed)?;
    match std::str::from_utf8(text) {
        Ok(text)
            if text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' ') =>
        {
            Ok(text.to_owned())
        }
        _ => Err(malformed(DerError::Value("ia5 string"))),
    }
}

/// Raw bytes, or the same wrapped in an OCTET STRING. Lengths tell them apart: the
/// wrapped form is two octets longer.
fn hardware_id(certificate: &Certificate, product: Product) -> Result<Vec<u8>, LeafError> {
    let value = required(certificate, HARDWARE_ID)?;
    let wanted = product.chip_id_len();
    if value.len() == wanted {
        return Ok(value.to_vec());
    }
    let mut der = Der::new(value);
    match der.content(OCTET_STRING) {
        Ok(inner) if inner.len() == wanted && der.is_empty() => Ok(inner.to_vec()),
        _ => Err(LeafError::Value(
            HARDWARE_ID.0,
            format!("of {} bytes", value.len()),
        )),
    }
}
