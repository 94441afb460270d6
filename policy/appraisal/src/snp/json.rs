//! The decoded form in which CoCo's attesters send a report.
//!
//! It carries no received bytes: the report is rebuilt with reserved bytes zero and
//! the TCB layout that `fmc` implies, and the signature decides whether that is
//! what the chip signed.

use agent_evidence::snp::REPORT_LEN;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    Product, Tcb, UnverifiedReport,
    fields::{Fields, FirmwareVersion},
    layout::SIGNED_LEN,
};
use crate::endorsements::{ContainerError, Endorsements};

/// Longest text read, in bytes.
pub const REPORT_JSON_LIMIT: usize = 1024 * 1024;

/// Text is not SNP evidence in CoCo's form.
#[derive(Debug, thiserror::Error)]
pub enum JsonEvidenceError {
    /// More text than any evidence has.
    #[error("evidence of {0} bytes is longer than {REPORT_JSON_LIMIT}")]
    TooLong(usize),
    /// Not the JSON of it.
    #[error("the evidence is not snp evidence in json")]
    Json(#[from] serde_json::Error),
    /// TCBs of two products in one report.
    #[error("some tcb versions have a boot component and others have none")]
    MixedTcb,
    /// A certificate of the chain cannot be read.
    #[error("the evidence's certificates cannot be read")]
    Certificates(#[from] ContainerError),
}

/// A report and what came with it, from CoCo's JSON.
#[derive(Clone, Debug)]
pub struct JsonEvidence {
    /// The report, rebuilt.
    pub report: UnverifiedReport,
    /// The certificates and lists of `cert_chain`.
    pub endorsements: Endorsements,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    attestation_report: WireReport,
    cert_chain: Option<Vec<WireCertificate>>,
}

#[derive(Serialize, Deserialize)]
struct WireReport {
    version: u32,
    guest_svn: u32,
    policy: u64,
    family_id: Bytes<16>,
    image_id: Bytes<16>,
    vmpl: u32,
    sig_algo: u32,
    current_tcb: WireTcb,
    plat_info: u64,
    key_info: u32,
    report_data: Bytes<64>,
    measurement: Bytes<48>,
    host_data: Bytes<32>,
    id_key_digest: Bytes<48>,
    author_key_digest: Bytes<48>,
    report_id: Bytes<32>,
    report_id_ma: Bytes<32>,
    reported_tcb: WireTcb,
    cpuid_fam_id: Option<u8>,
    cpuid_mod_id: Option<u8>,
    cpuid_step: Option<u8>,
    chip_id: Bytes<64>,
    committed_tcb: WireTcb,
    current: WireVersion,
    committed: WireVersion,
    launch_tcb: WireTcb,
    launch_mit_vector: Option<u64>,
    current_mit_vector: Option<u64>,
    signature: WireSignature,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct WireTcb {
    fmc: Option<u8>,
    bootloader: u8,
    tee: u8,
    snp: u8,
    microcode: u8,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct WireVersion {
    major: u8,
    minor: u8,
    build: u8,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    r: Bytes<72>,
    s: Bytes<72>,
}

#[derive(Serialize, Deserialize)]
struct WireCertificate {
    cert_type: CertificateType,
    data: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
enum CertificateType {
    #[serde(rename = "VCEK")]
    Vcek,
    #[serde(rename = "VLEK")]
    Vlek,
    #[serde(rename = "ASK")]
    Ask,
    #[serde(rename = "ARK")]
    Ark,
    #[serde(rename = "CRL")]
    Crl,
    Empty,
    #[serde(rename = "OTHER")]
    Other(String),
}

/// A fixed number of bytes, written as a list of integers.
struct Bytes<const N: usize>([u8; N]);

impl<const N: usize> Serialize for Bytes<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Bytes<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let length = bytes.len();
        let fixed = <[u8; N]>::try_from(bytes);
        fixed
            .map(Self)
            .map_err(|_| D::Error::custom(format_args!("{length} bytes where {N} are expected")))
    }
}

impl JsonEvidence {
    /// Reads CoCo's form of SNP evidence.
    ///
    /// # Errors
    ///
    /// [`JsonEvidenceError`] names what is wrong with the text.
    pub fn parse(text: &[u8]) -> Result<Self, JsonEvidenceError> {
        if text.len() > REPORT_JSON_LIMIT {
            return Err(JsonEvidenceError::TooLong(text.len()));
        }
        let wire: Wire = agent_documents::parse_json(text)?;
        let mut endorsements = Endorsements::default();
        for certificate in wire.cert_chain.unwrap_or_default() {
            match certificate.cert_type {
                CertificateType::Vcek
                | CertificateType::Vlek
                | CertificateType::Ask
                | CertificateType::Ark => {
                    endorsements.add(&certificate.data)?;
                }
                CertificateType::Crl => endorsements.add_crl(&certificate.data)?,
                CertificateType::Empty | CertificateType::Other(_) => {}
            }
        }
        Ok(Self {
            report: wire.attestation_report.rebuild()?,
            endorsements,
        })
    }

    /// Writes CoCo's form.
    pub fn to_json(&self) -> String {
        let certificates =
            self.endorsements
                .certificates
                .iter()
                .map(|certificate| WireCertificate {
                    cert_type: CertificateType::of(certificate.common_name()),
                    data: certificate.as_der().to_vec(),
                });
        let crls = self.endorsements.crls.iter().map(|crl| WireCertificate {
            cert_type: CertificateType::Crl,
            data: crl.as_der().to_vec(),
        });
        let chain: Vec<WireCertificate> = certificates.chain(crls).collect();
        let wire = Wire {
            attestation_report: WireReport::decode(&self.report),
            cert_chain: (!chain.is_empty()).then_some(chain),
        };
        serde_json::to_string(&wire).expect("numbers, text and lists are json")
    }
}

impl CertificateType {
    fn of(common_name: &str) -> Self {
        match common_name {
            "SEV-VCEK" => Self::Vcek,
            "SEV-VLEK" => Self::Vlek,
            name if name.starts_with("ARK-") => Self::Ark,
            _ => Self::Ask,
        }
    }
}

impl WireReport {
    fn rebuild(&self) -> Result<UnverifiedReport, JsonEvidenceError> {
        let tcbs = [
            self.current_tcb,
            self.reported_tcb,
            self.committed_tcb,
            self.launch_tcb,
        ];
        if tcbs
            .iter()
            .any(|tcb| tcb.fmc.is_some() != self.current_tcb.fmc.is_some())
        {
            return Err(JsonEvidenceError::MixedTcb);
        }
        let mut bytes = Vec::with_capacity(REPORT_LEN);
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.guest_svn.to_le_bytes());
        bytes.extend(self.policy.to_le_bytes());
        bytes.extend(self.family_id.0);
        bytes.extend(self.image_id.0);
        bytes.extend(self.vmpl.to_le_bytes());
        bytes.extend(self.sig_algo.to_le_bytes());
        bytes.extend(self.current_tcb.to_bytes());
        bytes.extend(self.plat_info.to_le_bytes());
        bytes.extend(self.key_info.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.report_data.0);
        bytes.extend(self.measurement.0);
        bytes.extend(self.host_data.0);
        bytes.extend(self.id_key_digest.0);
        bytes.extend(self.author_key_digest.0);
        bytes.extend(self.report_id.0);
        bytes.extend(self.report_id_ma.0);
        bytes.extend(self.reported_tcb.to_bytes());
        bytes.extend(
            [self.cpuid_fam_id, self.cpuid_mod_id, self.cpuid_step].map(Option::unwrap_or_default),
        );
        bytes.extend([0; 21]);
        bytes.extend(self.chip_id.0);
        bytes.extend(self.committed_tcb.to_bytes());
        for version in [self.current, self.committed] {
            bytes.extend([version.build, version.minor, version.major, 0]);
        }
        bytes.extend(self.launch_tcb.to_bytes());
        bytes.extend(self.launch_mit_vector.unwrap_or_default().to_le_bytes());
        bytes.extend(self.current_mit_vector.unwrap_or_default().to_le_bytes());
        bytes.resize(SIGNED_LEN, 0);
        bytes.extend(self.signature.r.0);
        bytes.extend(self.signature.s.0);
        bytes.resize(REPORT_LEN, 0);
        Ok(UnverifiedReport::parse(&bytes).expect("the fields above fill a report"))
    }

    fn decode(report: &UnverifiedReport) -> Self {
        let f: Fields = report.unproven_fields();
        let product = report.locator().product.unwrap_or(Product::Milan);
        let tcb = |bytes| WireTcb::decode(product, bytes);
        let since = |version: u32| f.version >= version;
        Self {
            version: f.version,
            guest_svn: f.guest_svn,
            policy: f.policy.0,
            family_id: Bytes(f.family_id.0),
            image_id: Bytes(f.image_id.0),
            vmpl: f.vmpl,
            sig_algo: f.signature_algorithm,
            current_tcb: tcb(f.current_tcb),
            plat_info: f.platform.0,
            key_info: f.key_info,
            report_data: Bytes(f.report_data.0),
            measurement: Bytes(f.measurement.0),
            host_data: Bytes(f.host_data.0),
            id_key_digest: Bytes(f.id_key_digest.0),
            author_key_digest: Bytes(f.author_key_digest.0),
            report_id: Bytes(f.report_id.0),
            report_id_ma: Bytes(f.report_id_ma.0),
            reported_tcb: tcb(f.reported_tcb),
            cpuid_fam_id: since(3).then_some(f.cpu.0),
            cpuid_mod_id: since(3).then_some(f.cpu.1),
            cpuid_step: since(3).then_some(f.cpu.2),
            chip_id: Bytes(f.chip_id.0),
            committed_tcb: tcb(f.committed_tcb),
            current: f.current.into(),
            committed: f.committed.into(),
            launch_tcb: tcb(f.launch_tcb),
            launch_mit_vector: since(5).then_some(f.launch_mit_vector),
            current_mit_vector: since(5).then_some(f.current_mit_vector),
            signature: WireSignature::decode(report),
        }
    }
}

impl WireSignature {
    fn decode(report: &UnverifiedReport) -> Self {
        let (r, s) = report.signature_fields();
        Self {
            r: Bytes(r),
            s: Bytes(s),
        }
    }
}

impl WireTcb {
    fn to_bytes(self) -> [u8; 8] {
        Tcb {
            fmc: self.fmc,
            bootloader: self.bootloader,
            tee: self.tee,
            snp: self.snp,
            microcode: self.microcode,
        }
        .to_bytes()
    }

    /// Reserved bytes have no place in this form; a report that uses them does not
    /// verify when rebuilt.
    fn decode(product: Product, [a, b, c, d, _, _, g, microcode]: [u8; 8]) -> Self {
        let (fmc, bootloader, tee, snp) = if product.has_fmc() {
            (Some(a), b, c, d)
        } else {
            (None, a, b, g)
        };
        Self {
            fmc,
            bootloader,
            tee,
            snp,
            microcode,
        }
    }
}

impl From<FirmwareVersion> for WireVersion {
    fn from(version: FirmwareVersion) -> Self {
        Self {
            major: version.major,
            minor: version.minor,
            build: version.build,
        }
    }
}
