//! The root of the simulated processors: keys and certificates in one directory.
//!
//! | file | what |
//! |---|---|
//! | `root.key`, `issuer.key` | RSA keys of ARK, and of ASK and ASVK, for every product |
//! | `chip.pk8` | P-384 key that signs reports, as VCEK and as VLEK |
//! | `chip.id` | the chip's id |
//! | `roots.pem` | ARK, ASK and ASVK of every product, for a verifier |
//!
//! Made once and kept, so that guests and verifiers of different runs agree. Whoever can read the
//! directory can sign reports: it is worth nothing outside of tests.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::{SecureRandom as _, SystemRandom},
    rsa::KeySize,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
pub use issue::authority::Chip;
use issue::authority::{CrlSpec, Signer};
use policy_appraisal::{
    Timestamp,
    snp::{Product, SigningKey, Tcb},
};

/// Certificates and revocation lists in DER: what the tests of the verifier use too.
#[path = "../../../policy/appraisal/tests/support"]
mod issue {
    #![allow(
        dead_code,
        unreachable_pub,
        missing_docs,
        clippy::new_without_default,
        clippy::unwrap_used,
        reason = "test code of another crate"
    )]
    pub(crate) mod authority;
    pub(crate) mod der;
}

/// How long a revocation list holds, in seconds.
const LIST_VALIDITY: u64 = 365 * 24 * 3600;

/// An authority on disk.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
    root: Signer,
    issuer: Signer,
    chip: Chip,
}

impl Authority {
    /// Opens the authority in a directory, or makes it there.
    pub fn open(directory: &Path) -> Result<Self> {
        if !directory.join("roots.pem").exists() {
            make(directory)?;
        }
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read(&path).with_context(|| format!("reading {}", path.display()))
        };
        let id = read("chip.id")?;
        let id = id.try_into().ok().context("chip.id has not 64 bytes")?;
        Ok(Self {
            directory: directory.to_owned(),
            root: signer(&read("root.key")?)?,
            issuer: signer(&read("issuer.key")?)?,
            chip: Chip::from_pkcs8(&read("chip.pk8")?, id).context("chip.pk8 is no P-384 key")?,
        })
    }

    /// The file that a verifier takes as its roots.
    #[must_use]
    pub fn roots(&self) -> PathBuf {
        self.directory.join("roots.pem")
    }

    /// The chip that signs.
    #[must_use]
    pub fn chip(&self) -> &Chip {
        &self.chip
    }

    /// The chip's certificate at a TCB, DER.
    #[must_use]
    pub fn leaf(&self, product: Product, kind: SigningKey, tcb: Tcb) -> Vec<u8> {
        let mut leaf = issue::authority::leaf(product, kind, &self.chip, tcb.to_bytes());
        leaf.certificate.signer = self.issuer;
        leaf.build()
    }

    /// The intermediate that issues leaves of this kind, DER.
    #[must_use]
    pub fn issuer(&self, product: Product, kind: SigningKey) -> Vec<u8> {
        let mut issuer = issue::authority::issuer_of(product, kind, self.issuer);
        issuer.signer = self.root;
        issuer.build()
    }

    /// The root, DER.
    #[must_use]
    pub fn root(&self, product: Product) -> Vec<u8> {
        issue::authority::root_of(product, self.root).build()
    }

    /// Intermediate and root, PEM, as AMD's key server gives them.
    #[must_use]
    pub fn chain(&self, product: Product, kind: SigningKey) -> String {
        pem(&self.issuer(product, kind)) + &pem(&self.root(product))
    }

    /// A revocation list of now, DER, that names these serial numbers.
    pub fn revocation_list(&self, product: Product, revoked: &[u8]) -> Result<Vec<u8>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        // The strings live as long as the process, which ends soon.
        let from: &'static str = generalized(now)?.leak();
        let to: &'static str = generalized(now + LIST_VALIDITY)?.leak();
        let list = CrlSpec {
            updates: (from, to),
            revoked: revoked.to_vec(),
            signer: self.root,
            ..CrlSpec::of(product)
        };
        Ok(list.build())
    }
}

/// Made aside and moved into place, so that two at once end with one authority.
fn make(directory: &Path) -> Result<()> {
    let parent = directory.parent().context("the root is no place for it")?;
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let aside = tempfile::tempdir_in(parent).context("making its folder")?;
    let aside = aside.path();
    for name in ["root.key", "issuer.key"] {
        rsa_key(&aside.join(name))?;
    }
    let random = SystemRandom::new();
    let unspecified = |_| anyhow::anyhow!("the system gives no randomness");
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random);
    fs::write(aside.join("chip.pk8"), key.map_err(unspecified)?)?;
    let mut id = [0; 64];
    random.fill(&mut id).map_err(unspecified)?;
    fs::write(aside.join("chip.id"), id)?;
    // With this file the directory is complete.
    fs::write(aside.join("roots.pem"), "")?;
    let authority = Authority::open(aside)?;
    let mut roots = String::new();
    for product in Product::ALL {
        roots += &authority.chain(product, SigningKey::Vcek);
        roots += &pem(&authority.issuer(product, SigningKey::Vlek));
    }
    fs::write(aside.join("roots.pem"), roots)?;
    match fs::rename(aside, directory) {
        Ok(()) => Ok(()),
        Err(_) if directory.join("roots.pem").exists() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("moving to {}", directory.display())),
    }
}

fn rsa_key(path: &Path) -> Result<()> {
    let made = RsaKeyPair::generate(KeySize::Rsa4096)
        .and_then(|key| AsDer::<Pkcs8V1Der<'static>>::as_der(&key))
        .map_err(|_| anyhow::anyhow!("no RSA key could be made"))?;
    fs::write(path, made.as_ref()).with_context(|| format!("writing {}", path.display()))
}

/// The key lives as long as the process, which opens one authority.
fn signer(key: &[u8]) -> Result<Signer> {
    // PKCS#8 as made here, or PKCS#1 as OpenSSL writes it.
    let key = RsaKeyPair::from_pkcs8(key).or_else(|_| RsaKeyPair::from_der(key));
    let key = key.ok().context("no RSA key")?;
    Ok(Signer::Given(Box::leak(Box::new(key))))
}

/// `YYYYMMDDHHMMSSZ`.
fn generalized(seconds: u64) -> Result<String> {
    let text = Timestamp::from_unix_seconds(seconds.try_into()?).to_string();
    Ok(text.replace(['-', ':', 'T'], ""))
}

fn pem(der: &[u8]) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let encoded = STANDARD.encode(der);
    for line in encoded.as_bytes().chunks(64) {
        text += &String::from_utf8_lossy(line);
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}
