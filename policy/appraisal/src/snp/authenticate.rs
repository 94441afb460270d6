//! From an unverified to an authentic report.
//!
//! The signature comes before any field: the chain is judged on the certificates
//! alone, the leaf's key is tried on the received bytes, and only then is the report
//! read and held against the certificate that verified it.

use agent_evidence::bytes::all_zero;

use super::{
    AuthenticReport, Product, ReferenceValues, Revocation, Roots, UnverifiedReport,
    authentic::Tcbs,
    endorsed,
    endorser::{AUTHORITY_KEY_BITS, Endorser, Leaf, SigningKey},
    fields::Fields,
    ids::ChipId,
};
use crate::{
    endorsements::Endorsements,
    same_bytes::same_bytes,
    time::Timestamp,
    verdict::{Check, Findings, Verdict},
    x509::{Certificate, Crl},
};

/// Checks that make a report authentic.
pub(crate) const AUTHENTICITY: &[Check] = &[
    Check::Certificate,
    Check::Chain,
    Check::Validity,
    Check::Revocation,
    Check::Signature,
    Check::Format,
    Check::SigningKey,
    Check::Product,
    Check::RefusedProduct,
    Check::ChipId,
    Check::TcbBinding,
];

const ECDSA_P384_SHA384: u32 = 1;
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=5;

struct Candidate<'a> {
    endorser: Endorser<'a>,
    leaf: Leaf,
}

impl UnverifiedReport {
    /// Proves that a chip of AMD signed the report.
    ///
    /// # Errors
    ///
    /// The verdict, with each check that refused and those that were not reached.
    pub fn authenticate(
        self,
        endorsements: &Endorsements,
        roots: &Roots,
        references: &ReferenceValues,
        at: Timestamp,
    ) -> Result<AuthenticReport, Verdict> {
        let mut findings = Findings::plan(&[AUTHENTICITY, super::appraise::APPRAISAL]);
        endorsed::plan(endorsements, references, &mut findings);
        match self.judge(endorsements, roots, references, at, &mut findings) {
            Some((fields, leaf, tcbs)) => Ok(AuthenticReport {
                fields,
                product: leaf.product,
                signing_key: leaf.kind,
                tcbs,
                endorsement: endorsed::authenticate(endorsements, references, at, &mut findings),
                findings,
            }),
            None => Err(findings.into_verdict()),
        }
    }

    fn judge(
        &self,
        endorsements: &Endorsements,
        roots: &Roots,
        references: &ReferenceValues,
        at: Timestamp,
        findings: &mut Findings,
    ) -> Option<(Fields, Leaf, Tcbs)> {
        let candidates = find_leaves(endorsements, roots, findings)?;
        let Candidate { endorser, leaf } = self.find_signer(candidates, findings)?;
        let certified = judge_validity(&endorser, at, findings)
            & judge_revocation(
                &endorser,
                &endorsements.crls,
                references.revocation,
                at,
                findings,
            );

        let fields = self.unproven_fields();
        let tcbs = Tcbs::read(&fields, leaf.product);
        let bound = judge_format(self, &fields, tcbs.is_some(), findings)
            & judge_signing_key(&fields, &leaf, references, findings)
            & judge_product(&fields, &leaf, &endorser, findings)
            & judge_refused_product(leaf.product, references, findings)
            & judge_chip(&fields, &leaf, references, findings);
        let tcbs = tcbs?;
        let same_tcb = findings.compare(Check::TcbBinding, &leaf.tcb, &tcbs.reported);
        (certified && bound && same_tcb).then_some((fields, leaf, tcbs))
    }

    /// The candidate whose key signed the bytes. With none, the report is refused
    /// whatever it says.
    fn find_signer<'a>(
        &self,
        candidates: Vec<Candidate<'a>>,
        findings: &mut Findings,
    ) -> Option<Candidate<'a>> {
        let expected = "an ECDSA signature by the certificate's key over the first 672 bytes";
        let Some(scalars) = self.scalars() else {
            findings.note(
                Check::Signature,
                false,
                expected,
                "R or S wider than 384 bits",
            );
            return None;
        };
        let signer = candidates
            .into_iter()
            .find(|candidate| self.is_signed_by(&candidate.leaf, &scalars));
        let received = match &signer {
            Some(signer) => format!("signed by the {}", signer.leaf.kind),
            None => "a signature that no endorsed key made".to_owned(),
        };
        findings.note(Check::Signature, signer.is_some(), expected, received);
        signer
    }
}

/// Every leaf that is in form and chains to a pinned root.
fn find_leaves<'a>(
    endorsements: &'a Endorsements,
    roots: &'a Roots,
    findings: &mut Findings,
) -> Option<Vec<Candidate<'a>>> {
    let mut readable = Vec::new();
    let mut fault = "no VCEK or VLEK certificate".to_owned();
    for certificate in &endorsements.certificates {
        let Some(kind) = SigningKey::of_subject(certificate.common_name()) else {
            continue;
        };
        match Leaf::read(certificate, kind) {
            Ok(leaf) => readable.push((certificate, leaf)),
            Err(error) => fault = error.to_string(),
        }
    }
    let received = match readable.first() {
        Some((_, leaf)) => format!("{} of {}", leaf.kind, leaf.product),
        None => fault,
    };
    let expected = "a VCEK or VLEK certificate with every extension of its kind";
    if !findings.note(Check::Certificate, !readable.is_empty(), expected, received) {
        return None;
    }

    let described = readable
        .first()
        .map(|(certificate, leaf)| describe_chain(certificate, leaf.product))
        .unwrap_or_default();
    let candidates: Vec<Candidate<'a>> = readable
        .into_iter()
        .filter_map(|(certificate, leaf)| {
            let which = (leaf.kind, leaf.product);
            let endorser = Endorser::find(certificate, which, endorsements, roots)?;
            Some(Candidate { endorser, leaf })
        })
        .collect();
    let expected = format_args!(
        "leaf, ASK or ASVK, and the pinned ARK of one product, both with RSA keys of {AUTHORITY_KEY_BITS} bits"
    );
    let chained = !candidates.is_empty();
    findings.note(Check::Chain, chained, expected, described);
    chained.then_some(candidates)
}

fn describe_chain(leaf: &Certificate, product: Product) -> String {
    let (name, issuer) = (leaf.common_name(), &leaf.issuer.common_name);
    format!("{name} by {issuer} for {product}")
}

fn judge_validity(endorser: &Endorser<'_>, at: Timestamp, findings: &mut Findings) -> bool {
    let stale = endorser
        .certificates()
        .into_iter()
        .find(|certificate| !certificate.is_valid_at(at));
    let shown = stale.unwrap_or(endorser.leaf);
    findings.note(
        Check::Validity,
        stale.is_none(),
        format_args!("valid at {at}"),
        format_args!(
            "{} valid from {} to {}",
            shown.common_name(),
            shown.not_before,
            shown.not_after
        ),
    )
}

/// Lists that are present count even where none is required.
fn judge_revocation(
    endorser: &Endorser<'_>,
    crls: &[Crl],
    rule: Revocation,
    at: Timestamp,
    findings: &mut Findings,
) -> bool {
    let expected = match rule {
        Revocation::Required { max_age_seconds } => {
            format!(
                "a list by the root, at most {max_age_seconds} s old, that names no certificate of the chain"
            )
        }
        Revocation::Optional => {
            "no list by the root that names a certificate of the chain".to_owned()
        }
    };
    let ours: Vec<&Crl> = crls
        .iter()
        .filter(|crl| crl.is_signed_by(endorser.root))
        .collect();
    let revoked = endorser
        .certificates()
        .into_iter()
        .take(2)
        .find(|certificate| {
            is_nameable(certificate, endorser) && ours.iter().any(|crl| crl.revokes(certificate))
        });
    let fresh = ours.iter().find(|crl| is_fresh(crl, rule, at));
    let (passed, received) = match (revoked, fresh, rule, ours.last()) {
        (Some(certificate), ..) => (false, format!("{} is revoked", certificate.common_name())),
        (None, Some(crl), ..) => (true, format!("a list of {}", crl.this_update)),
        (None, None, Revocation::Optional, _) => (true, "no fresh list".to_owned()),
        (None, None, _, Some(crl)) => {
            let (from, next) = (crl.this_update, crl.next_update);
            (false, format!("a list of {from}, superseded {next}"))
        }
        (None, None, _, None) => (false, "no list by the root".to_owned()),
    };
    findings.note(Check::Revocation, passed, expected, received)
}

/// A direct list of the root names what the root issued; a leaf's serial number is
/// counted by another authority and often 0.
fn is_nameable(certificate: &Certificate, endorser: &Endorser<'_>) -> bool {
    certificate.issuer == endorser.root.subject
}

fn is_fresh(crl: &Crl, rule: Revocation, at: Timestamp) -> bool {
    let age = at
        .unix_seconds()
        .saturating_sub(crl.this_update.unix_seconds());
    let young = match rule {
        Revocation::Required { max_age_seconds } => age <= i64::from(max_age_seconds),
        Revocation::Optional => true,
    };
    age >= 0 && young && at <= crl.next_update
}

fn judge_format(
    report: &UnverifiedReport,
    fields: &Fields,
    tcbs_in_form: bool,
    findings: &mut Findings,
) -> bool {
    let fault = if !VERSIONS.contains(&fields.version) {
        Some(format!("version {}", fields.version))
    } else if fields.signature_algorithm != ECDSA_P384_SHA384 {
        Some(format!(
            "signature algorithm {}",
            fields.signature_algorithm
        ))
    } else if !fields.reserved_is_zero || !report.has_zero_tail() {
        Some("reserved bytes that are not zero".to_owned())
    } else if fields.version < 3 && fields.cpu != (0, 0, 0) {
        Some("a CPU in a version that has none".to_owned())
    } else if fields.version < 5 && (fields.launch_mit_vector, fields.current_mit_vector) != (0, 0)
    {
        Some("mitigations in a version that has none".to_owned())
    } else if !fields.key_info_is_known() {
        Some(format!("key info {:#x}", fields.key_info))
    } else if !tcbs_in_form {
        Some("a TCB with reserved bytes that are not zero".to_owned())
    } else {
        None
    };
    let expected = "version 2 to 5, ECDSA P-384 with SHA-384, reserved bits zero";
    let passed = fault.is_none();
    let received = fault.unwrap_or_else(|| format!("version {}", fields.version));
    findings.note(Check::Format, passed, expected, received)
}

fn judge_signing_key(
    fields: &Fields,
    leaf: &Leaf,
    references: &ReferenceValues,
    findings: &mut Findings,
) -> bool {
    let selector = fields.signing_key_selector();
    let selected = SigningKey::of_selector(selector);
    let masked = leaf.kind == SigningKey::Vcek && fields.chip_key_is_masked();
    let provider = leaf.provider.as_deref();
    let provided = provider.is_none_or(|provider| references.vlek_providers.contains(provider));
    let passed = selected == Some(leaf.kind) && !masked && provided;
    let received = match (selected, provider) {
        (None, _) => format!("selector {selector}"),
        (Some(_), _) if masked => "VCEK, although the chip key is masked".to_owned(),
        (Some(key), Some(provider)) => format!("{key}, provider {provider}"),
        (Some(key), None) => key.to_string(),
    };
    let expected = match leaf.kind {
        SigningKey::Vcek => "VCEK, as the certificate".to_owned(),
        SigningKey::Vlek => format!(
            "VLEK, as the certificate, provider one of {:?}",
            references.vlek_providers
        ),
    };
    findings.note(Check::SigningKey, passed, expected, received)
}

fn judge_product(
    fields: &Fields,
    leaf: &Leaf,
    endorser: &Endorser<'_>,
    findings: &mut Findings,
) -> bool {
    let root = &endorser.root.subject.common_name;
    let expected = format!("a CPU of {}, as certificate and {root}", leaf.product);
    let (family, model, stepping) = fields.cpu;
    if fields.version < 3 {
        return findings.note(Check::Product, true, expected, "no CPU, by its version");
    }
    let named = Product::of_cpu(family, model);
    let name = named.map_or("unknown", Product::name);
    let received = format!("family {family:#04x} model {model:#04x} stepping {stepping} ({name})");
    findings.note(
        Check::Product,
        named == Some(leaf.product),
        expected,
        received,
    )
}

fn judge_refused_product(
    product: Product,
    references: &ReferenceValues,
    findings: &mut Findings,
) -> bool {
    let refused = &references.refused_products;
    let names: Vec<&str> = refused.iter().map(|product| product.name()).collect();
    let expected = match names[..] {
        [] => "any product".to_owned(),
        _ => format!(
            "none of {} (reference value refused_products)",
            names.join(", ")
        ),
    };
    let received = match product {
        Product::Milan => "Milan, from which extraction of keys has been published",
        Product::Genoa | Product::Turin => product.name(),
    };
    findings.note(
        Check::RefusedProduct,
        !refused.contains(&product),
        expected,
        received,
    )
}

fn judge_chip(
    fields: &Fields,
    leaf: &Leaf,
    references: &ReferenceValues,
    findings: &mut Findings,
) -> bool {
    let ChipId(chip) = &fields.chip_id;
    let is_masked = all_zero(chip);
    match &leaf.hardware_id {
        // A VLEK belongs to a provider: that one is trusted is a reference value.
        None => findings.note(
            Check::ChipId,
            true,
            "any chip of the VLEK's provider",
            fields.chip_id,
        ),
        Some(_) if is_masked => findings.note(
            Check::ChipId,
            references.masked_chip_id,
            "a chip id (masked ones only by reference value masked_chip_id)",
            "a masked chip id",
        ),
        Some(hardware_id) => {
            let mut expected = [0; ChipId::SIZE];
            expected
                .iter_mut()
                .zip(hardware_id)
                .for_each(|(to, from)| *to = *from);
            let passed = same_bytes(&expected, chip);
            findings.note(Check::ChipId, passed, ChipId(expected), fields.chip_id)
        }
    }
}
