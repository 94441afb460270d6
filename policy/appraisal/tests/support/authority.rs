//! The certificate authority: root, intermediates, leaves and revocation lists, with
//! AMD's names and extensions, and every mistake a test asks for.

use std::sync::LazyLock;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA384,
        RSA_PSS_SHA384, RsaEncoding, RsaKeyPair,
    },
};
use policy_appraisal::snp::{Product, SigningKey};

use super::der::{self, element, extension, oid, sequence, small_integer};

const AMD: [u8; 8] = [0x2B, 0x06, 0x01, 0x04, 0x01, 0x9C, 0x78, 0x01];
pub const BASIC_CONSTRAINTS: [u8; 3] = [0x55, 0x1D, 0x13];
pub const KEY_USAGE: [u8; 3] = [0x55, 0x1D, 0x0F];

static ROOT: LazyLock<RsaKeyPair> = LazyLock::new(|| rsa(include_bytes!("../keys/root.pk8")));
static ISSUER: LazyLock<RsaKeyPair> = LazyLock::new(|| rsa(include_bytes!("../keys/issuer.pk8")));
static OTHER: LazyLock<RsaKeyPair> = LazyLock::new(|| rsa(include_bytes!("../keys/other.pk8")));

fn rsa(pkcs8: &[u8]) -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(pkcs8).unwrap()
}

/// Who signs.
#[derive(Clone, Copy, Debug)]
pub enum Signer {
    Root,
    Issuer,
    /// A key that nobody trusts.
    Other,
    /// A key that is not in this folder.
    Given(&'static RsaKeyPair),
}

impl Signer {
    fn key(self) -> &'static RsaKeyPair {
        match self {
            Self::Root => &ROOT,
            Self::Issuer => &ISSUER,
            Self::Other => &OTHER,
            Self::Given(key) => key,
        }
    }

    /// RSASSA-PSS with SHA-384.
    pub fn sign(self, message: &[u8]) -> Vec<u8> {
        self.sign_in(&RSA_PSS_SHA384, message)
    }

    fn sign_in(self, padding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.key().public_modulus_len()];
        self.key()
            .sign(padding, &SystemRandom::new(), message, &mut signature)
            .unwrap();
        signature
    }

    pub fn public_key(self) -> Vec<u8> {
        let algorithm = sequence(&[
            &oid(&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01]),
            &[5, 0],
        ]);
        sequence(&[
            &algorithm,
            &der::bit_string(self.key().public_key().as_ref()),
        ])
    }
}

/// RSASSA-PSS with SHA-384, with or without the trailer field spelt out.
pub fn pss(spelt_out: bool) -> Vec<u8> {
    let sha384 = sequence(&[
        &oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02]),
        &[5, 0],
    ]);
    let mgf1 = sequence(&[
        &oid(&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x08]),
        &sha384,
    ]);
    let trailer = if spelt_out {
        element(0xA3, &small_integer(1))
    } else {
        Vec::new()
    };
    let parameters = sequence(&[
        &element(0xA0, &sha384),
        &element(0xA1, &mgf1),
        &element(0xA2, &small_integer(48)),
        &trailer,
    ]);
    sequence(&[
        &oid(&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0A]),
        &parameters,
    ])
}

/// RSASSA-PKCS1-v1_5 with SHA-384.
pub fn pkcs1() -> Vec<u8> {
    let sha384_with_rsa = oid(&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0C]);
    sequence(&[&sha384_with_rsa, &[5, 0]])
}

/// What goes into a certificate.
#[derive(Clone, Debug)]
pub struct CertificateSpec {
    pub serial: u8,
    pub subject: String,
    pub issuer: String,
    pub validity: (&'static str, &'static str),
    pub public_key: Vec<u8>,
    pub extensions: Vec<Vec<u8>>,
    pub signer: Signer,
    pub spelt_out: bool,
    /// Another algorithm inside than outside.
    pub inner_algorithm: Option<Vec<u8>>,
}

impl CertificateSpec {
    pub fn build(&self) -> Vec<u8> {
        self.build_in(pss(self.spelt_out), &RSA_PSS_SHA384)
    }

    /// The same, signed as the authorities of UVM endorsements do.
    pub fn build_pkcs1(&self) -> Vec<u8> {
        self.build_in(pkcs1(), &RSA_PKCS1_SHA384)
    }

    fn build_in(&self, algorithm: Vec<u8>, padding: &'static dyn RsaEncoding) -> Vec<u8> {
        let (from, to) = self.validity;
        let body = sequence(&[
            &element(0xA0, &small_integer(2)),
            &small_integer(self.serial),
            self.inner_algorithm.as_ref().unwrap_or(&algorithm),
            &der::name(&self.issuer),
            &sequence(&[&der::generalized_time(from), &der::generalized_time(to)]),
            &der::name(&self.subject),
            &self.public_key,
            &element(0xA3, &element(0x30, &self.extensions.concat())),
        ]);
        sequence(&[
            &body,
            &algorithm,
            &der::bit_string(&self.signer.sign_in(padding, &body)),
        ])
    }
}

const LONG: (&str, &str) = ("20200101000000Z", "20450101000000Z");

/// A certificate authority; the root in this folder signs unless told otherwise.
pub fn authority(subject: String, issuer: String, key: Signer, usage: u8) -> CertificateSpec {
    CertificateSpec {
        serial: 0x11,
        subject,
        issuer,
        validity: LONG,
        public_key: key.public_key(),
        extensions: vec![
            extension(&BASIC_CONSTRAINTS, true, &sequence(&[&der::boolean(true)])),
            extension(&KEY_USAGE, true, &element(0x03, &[1, usage])),
        ],
        signer: Signer::Root,
        spelt_out: true,
        inner_algorithm: None,
    }
}

/// The root of a product: may sign certificates and lists.
pub fn root(product: Product) -> CertificateSpec {
    root_of(product, Signer::Root)
}

/// The same with another key.
pub fn root_of(product: Product, key: Signer) -> CertificateSpec {
    let name = format!("ARK-{product}");
    CertificateSpec {
        signer: key,
        ..authority(name.clone(), name, key, 0x06)
    }
}

/// The intermediate that issues leaves of this kind.
pub fn issuer(product: Product, kind: SigningKey) -> CertificateSpec {
    issuer_of(product, kind, Signer::Issuer)
}

/// The same with another key; the root in this folder signs unless told otherwise.
pub fn issuer_of(product: Product, kind: SigningKey, key: Signer) -> CertificateSpec {
    let name = match kind {
        SigningKey::Vcek => format!("SEV-{product}"),
        SigningKey::Vlek => format!("SEV-VLEK-{product}"),
    };
    CertificateSpec {
        serial: 0x22,
        ..authority(name, format!("ARK-{product}"), key, 0x04)
    }
}

/// An AMD extension: last arcs and value.
pub type AmdExtension = (&'static [u8], Vec<u8>);

/// A leaf, taken apart.
#[derive(Clone, Debug)]
pub struct LeafSpec {
    pub certificate: CertificateSpec,
    pub amd: Vec<AmdExtension>,
}

impl LeafSpec {
    pub fn build(&self) -> Vec<u8> {
        let mut certificate = self.certificate.clone();
        for (arcs, value) in &self.amd {
            certificate
                .extensions
                .push(extension(&[&AMD, *arcs].concat(), false, value));
        }
        certificate.build()
    }

    /// The value of one extension.
    pub fn amd(&mut self, arcs: &[u8]) -> &mut Vec<u8> {
        let found = self.amd.iter_mut().find(|(each, _)| *each == arcs);
        &mut found.unwrap().1
    }
}

/// A leaf that is right in every respect.
pub fn leaf(product: Product, kind: SigningKey, chip: &Chip, tcb: [u8; 8]) -> LeafSpec {
    let turin = product == Product::Turin;
    let spl = |place: usize| small_integer(tcb[place]);
    let [bl, tee, snp] = if turin { [1, 2, 3] } else { [0, 1, 6] };
    let name: &[u8] = match (product, kind) {
        (Product::Milan, SigningKey::Vcek) => b"Milan-B0",
        _ => product.name().as_bytes(),
    };
    let mut amd: Vec<AmdExtension> = vec![
        (&[1], small_integer(u8::from(turin))),
        (&[2], element(der::IA5_STRING, name)),
        (&[3, 1], spl(bl)),
        (&[3, 2], spl(tee)),
        (&[3, 3], spl(snp)),
        (&[3, 5], small_integer(0)),
        (&[3, 6], small_integer(0)),
        (&[3, 7], small_integer(0)),
        (&[3, 8], spl(7)),
    ];
    amd.push(if turin {
        (&[3, 9], spl(0))
    } else {
        (&[3, 4], small_integer(0))
    });
    amd.push(match kind {
        SigningKey::Vcek => (&[4], chip.hardware_id(product).to_vec()),
        SigningKey::Vlek => (&[5], element(der::IA5_STRING, b"CN=cc.example.com")),
    });
    let (subject, issuer_name) = match kind {
        SigningKey::Vcek => ("SEV-VCEK", issuer(product, kind).subject),
        SigningKey::Vlek => ("SEV-VLEK", issuer(product, kind).subject),
    };
    LeafSpec {
        certificate: CertificateSpec {
            serial: 0,
            subject: subject.to_owned(),
            issuer: issuer_name,
            validity: ("20240101000000Z", "20310101000000Z"),
            public_key: chip.public_key(),
            extensions: Vec::new(),
            signer: Signer::Issuer,
            spelt_out: false,
            inner_algorithm: None,
        },
        amd,
    }
}

/// A revocation list of a root.
#[derive(Clone, Debug)]
pub struct CrlSpec {
    pub issuer: String,
    pub updates: (&'static str, &'static str),
    pub revoked: Vec<u8>,
    pub extensions: Vec<Vec<u8>>,
    pub signer: Signer,
}

impl CrlSpec {
    pub fn of(product: Product) -> Self {
        Self {
            issuer: format!("ARK-{product}"),
            updates: ("20250530000000Z", "20260530000000Z"),
            revoked: Vec::new(),
            extensions: Vec::new(),
            signer: Signer::Root,
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let algorithm = pss(true);
        let date = der::generalized_time("20250101000000Z");
        let entries: Vec<Vec<u8>> = self
            .revoked
            .iter()
            .map(|serial| sequence(&[&small_integer(*serial), &date]))
            .collect();
        let revoked = if entries.is_empty() {
            Vec::new()
        } else {
            element(0x30, &entries.concat())
        };
        let extensions = match self.extensions.is_empty() {
            true => Vec::new(),
            false => element(0xA0, &element(0x30, &self.extensions.concat())),
        };
        let body = sequence(&[
            &small_integer(1),
            &algorithm,
            &der::name(&self.issuer),
            &der::generalized_time(self.updates.0),
            &der::generalized_time(self.updates.1),
            &revoked,
            &extensions,
        ]);
        sequence(&[
            &body,
            &algorithm,
            &der::bit_string(&self.signer.sign(&body)),
        ])
    }
}

/// One chip: the key that signs reports, and its id.
#[derive(Debug)]
pub struct Chip {
    key: EcdsaKeyPair,
    pub id: [u8; 64],
}

impl Chip {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
        let mut id = [0; 64];
        (0_u8..)
            .zip(&mut id)
            .for_each(|(number, byte)| *byte = number | 0x80);
        Self::from_pkcs8(pkcs8.as_ref(), id).unwrap()
    }

    /// A chip with this key, if it is one on P-384.
    pub fn from_pkcs8(pkcs8: &[u8], id: [u8; 64]) -> Option<Self> {
        let algorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).ok()?;
        Some(Self { key, id })
    }

    pub fn hardware_id(&self, product: Product) -> &[u8] {
        if product == Product::Turin {
            &self.id[..8]
        } else {
            &self.id
        }
    }

    fn public_key(&self) -> Vec<u8> {
        let algorithm = sequence(&[
            &oid(&[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01]),
            &oid(&[0x2B, 0x81, 0x04, 0x00, 0x22]),
        ]);
        sequence(&[&algorithm, &der::bit_string(self.key.public_key().as_ref())])
    }

    /// Signs the first 672 bytes and writes R and S behind them.
    pub fn sign(&self, report: &mut [u8; 1184]) {
        let signature = self
            .key
            .sign(&SystemRandom::new(), &report[..0x2A0])
            .unwrap();
        let (r, s) = signature.as_ref().split_at(48);
        for (offset, scalar) in [(0x2A0, r), (0x2E8, s)] {
            for (place, byte) in scalar.iter().rev().enumerate() {
                report[offset + place] = *byte;
            }
        }
    }
}
