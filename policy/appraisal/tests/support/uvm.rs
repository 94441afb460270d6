//! The maker of images, played by the tests: endorsements as AKS and ACI have them, with
//! every mistake a test asks for.

use agent_evidence::Sha256Digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use policy_appraisal::{
    Verdict,
    snp::{EndorsedIdentity, Identities},
};

use super::{
    authority::{self, BASIC_CONSTRAINTS, CertificateSpec, KEY_USAGE, Signer},
    der::{self, element, extension, oid, sequence},
    scene::Scene,
};

/// 1.3.6.1.4.1.311.76.59.1.5
pub const USAGE: &str = "1.3.6.1.4.1.311.76.59.1.5";
const USAGE_OID: [u8; 10] = [0x2B, 6, 1, 4, 1, 0x82, 0x37, 76, 59, 1];
pub const FEED: &str = "ConfAKS-AMD-UVM";
/// 2024-01-01T00:00:00Z
pub const SIGNED: i64 = 1_704_067_200;
const EXTENDED_KEY_USAGE: [u8; 3] = [0x55, 0x1D, 0x25];

pub const ACI: &str =
    "did:x509:0:sha256:I__iuL25oXEVFdTP_aBLx_eT1RPHbCQ_ECBQfYZpt9s::eku:1.3.6.1.4.1.311.76.59.1.2";

/// Header entries: encoded label and encoded value.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// The parts of a message, after it was signed.
pub struct Parts {
    pub protected: Vec<u8>,
    pub unprotected: Vec<u8>,
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
}

/// An endorsement, taken apart. Right in every respect as made.
pub struct EndorsementSpec {
    pub leaf: CertificateSpec,
    pub issuer: CertificateSpec,
    pub root: CertificateSpec,
    /// Whom it claims to be of, unless the root's owner.
    pub did: Option<String>,
    pub feed: &'static str,
    pub payload: String,
    pub signing_time: i64,
    pub signer: Signer,
    /// What the signer does to the header.
    pub header: fn(&mut Entries),
    /// What the host does to the message.
    pub tamper: fn(&mut Parts),
}

/// The leaf's extensions: usages of the key, and purposes by the last arc of their OID.
pub fn leaf_extensions(usage: u8, purposes: &[u8]) -> Vec<Vec<u8>> {
    let purposes: Vec<Vec<u8>> = purposes
        .iter()
        .map(|last| oid(&[&USAGE_OID[..], &[*last]].concat()))
        .collect();
    let usages = element(0x03, &[0, usage]);
    vec![
        extension(&KEY_USAGE, true, &usages),
        extension(
            &EXTENDED_KEY_USAGE,
            false,
            &element(0x30, &purposes.concat()),
        ),
        extension(&BASIC_CONSTRAINTS, true, &sequence(&[])),
    ]
}

pub fn payload(svn: &str, measurement: [u8; 48]) -> String {
    let measurement = hex::encode(measurement);
    format!(
        r#"{{"x-ms-sevsnpvm-guestsvn": "{svn}", "x-ms-sevsnpvm-launchmeasurement": "{measurement}"}}"#
    )
}

impl EndorsementSpec {
    /// Svn 7 for the measurement of a [`Scene`].
    pub fn new() -> Self {
        let certificate = |subject: &str, issuer: &str, key, usage| {
            authority::authority(subject.to_owned(), issuer.to_owned(), key, usage)
        };
        Self {
            root: certificate("Root", "Root", Signer::Root, 0x86),
            issuer: certificate("Issuer", "Root", Signer::Issuer, 0x86),
            leaf: CertificateSpec {
                signer: Signer::Issuer,
                validity: ("20230601000000Z", "20240601000000Z"),
                extensions: leaf_extensions(0x80, &[1, 5]),
                ..certificate("Leaf", "Issuer", Signer::Other, 0)
            },
            did: None,
            feed: FEED,
            payload: payload("7", [0xA1; 48]),
            signing_time: SIGNED,
            signer: Signer::Other,
            header: |_| {},
            tamper: |_| {},
        }
    }

    /// The issuer that the chain proves.
    pub fn did(&self) -> String {
        let Sha256Digest(root) = Sha256Digest::of(&[&self.root.build_pkcs1()]);
        let root = URL_SAFE_NO_PAD.encode(root);
        format!("did:x509:0:sha256:{root}::eku:{USAGE}")
    }

    /// What an owner writes who accepts it.
    pub fn accepted(&self) -> EndorsedIdentity {
        EndorsedIdentity {
            issuer: self.did().parse().unwrap(),
            feed: FEED.to_owned(),
            minimum_svn: 7,
        }
    }

    pub fn build(&self) -> Vec<u8> {
        let mut entries = self.entries();
        (self.header)(&mut entries);
        let pairs: Vec<u8> = entries
            .iter()
            .flat_map(|(label, value)| [label.clone(), value.clone()].concat())
            .collect();
        let protected = [head(5, entries.len()), pairs].concat();
        let payload = self.payload.as_bytes().to_vec();
        let to_be_signed = array(&[
            &text("Signature1"),
            &bytes(&protected),
            &bytes(&[]),
            &bytes(&payload),
        ]);
        let mut parts = Parts {
            protected,
            unprotected: [head(5, 1), text("timestamp"), bytes(&[0; 100])].concat(),
            payload,
            signature: self.signer.sign(&to_be_signed),
        };
        (self.tamper)(&mut parts);
        let message = array(&[
            &bytes(&parts.protected),
            &parts.unprotected,
            &bytes(&parts.payload),
            &bytes(&parts.signature),
        ]);
        [head(6, 18), message].concat()
    }

    fn entries(&self) -> Entries {
        let leaf = self.leaf.build_pkcs1();
        let Sha256Digest(thumbprint) = Sha256Digest::of(&[&leaf]);
        let chain = [
            &bytes(&leaf)[..],
            &bytes(&self.issuer.build_pkcs1()),
            &bytes(&self.root.build_pkcs1()),
        ];
        let did = self.did.clone().unwrap_or_else(|| self.did());
        vec![
            (integer(1), integer(-38)),
            (integer(3), text("application/json")),
            (integer(33), array(&chain)),
            (integer(34), array(&[&integer(-16), &bytes(&thumbprint)])),
            (text("iss"), text(&did)),
            (text("feed"), text(self.feed)),
            (
                text("signingtime"),
                [head(6, 1), integer(self.signing_time)].concat(),
            ),
        ]
    }
}

/// The entry with this label.
pub fn entry<'a>(entries: &'a mut Entries, label: &[u8]) -> &'a mut Vec<u8> {
    let found = entries.iter_mut().find(|(each, _)| each == label);
    &mut found.unwrap().1
}

pub fn head(kind: u8, value: usize) -> Vec<u8> {
    let wide = u32::try_from(value).unwrap().to_be_bytes();
    let (short, tail) = match value {
        0..=23 => (wide[3], &wide[4..]),
        24..=0xFF => (24, &wide[3..]),
        0x100..=0xFFFF => (25, &wide[2..]),
        _ => (26, &wide[..]),
    };
    [&[kind << 5 | short], tail].concat()
}

pub fn integer(value: i64) -> Vec<u8> {
    match usize::try_from(value) {
        Ok(value) => head(0, value),
        Err(_) => head(1, usize::try_from(-1 - value).unwrap()),
    }
}

pub fn bytes(content: &[u8]) -> Vec<u8> {
    [&head(2, content.len()), content].concat()
}

pub fn text(content: &str) -> Vec<u8> {
    [&head(3, content.len()), content.as_bytes()].concat()
}

pub fn array(items: &[&[u8]]) -> Vec<u8> {
    [head(4, items.len()), items.concat()].concat()
}

/// A certificate signed as AMD's are.
pub fn in_pss(spec: &CertificateSpec) -> Vec<u8> {
    spec.build()
}

/// A certificate of which inner and outer algorithm differ.
pub fn with_two_algorithms(spec: &CertificateSpec) -> Vec<u8> {
    let mut spec = spec.clone();
    spec.inner_algorithm = Some(authority::pss(false));
    spec.build_pkcs1()
}

/// An extension that must be understood and is not: name constraints.
pub fn unknown_critical() -> Vec<u8> {
    extension(&[0x55, 0x1D, 0x1E], true, &der::sequence(&[]))
}

/// A scene that accepts what [`EndorsementSpec::new`] makes, and its verdict.
pub fn judge(spec: &EndorsementSpec) -> Verdict {
    let mut scene = Scene::genoa();
    scene.references.identities = Identities {
        endorsed: vec![EndorsementSpec::new().accepted()],
        ..Identities::default()
    };
    let mut endorsements = scene.endorsements();
    endorsements.add_uvm_endorsement(&spec.build()).unwrap();
    scene.judge_with(&endorsements, &scene.roots())
}
