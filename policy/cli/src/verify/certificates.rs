//! Certificates, lists and the image's endorsement beside those in the evidence.
//!
//! Wherever they come from, they are judged like what the evidence carries.

use std::path::Path;

use agent_evidence::MAX_CERTIFICATES_LEN;
use anyhow::{Context as _, Result, bail};
use policy_appraisal::{
    Endorsements, Evidence,
    snp::{EndorsementLocator, Store, ThimCertificates},
    uvm::MAX_ENDORSEMENT_LEN,
};

use super::{Options, inputs::bounded, kds};

/// Adds what the options name to what the evidence has.
pub(super) fn endorse(evidence: &mut Evidence, options: &Options) -> Result<()> {
    let wanted = evidence.report().locator();
    let endorsements = evidence.endorsements_mut();
    if let Some(path) = &options.uvm_endorsement {
        let endorsement = bounded(path, MAX_ENDORSEMENT_LEN)?;
        let added = endorsements.add_uvm_endorsement(&endorsement);
        added.with_context(|| format!("the UVM endorsement {}", path.display()))?;
    }
    for path in &options.certificates {
        let found = certificates(path, &wanted)?;
        add_all(endorsements, &found)
            .with_context(|| format!("the certificates {}", path.display()))?;
    }
    for path in &options.revocation_list {
        let found = lists(path)?;
        add_all(endorsements, &found)
            .with_context(|| format!("the revocation list {}", path.display()))?;
    }
    let Some(directory) = &options.store else {
        return Ok(());
    };
    if let Some(url) = &options.kds {
        kds::Kds::new(url, directory)?.fetch(&wanted)?;
    }
    add_all(endorsements, &Store::new(directory).find(&wanted)?)
}

/// A file of certificates, or what Azure's service answers.
fn certificates(path: &Path, wanted: &EndorsementLocator) -> Result<Endorsements> {
    let content = bounded(path, MAX_CERTIFICATES_LEN)?;
    let what = || format!("the certificates {}", path.display());
    let found = if ThimCertificates::is_one(&content) {
        let thim = ThimCertificates::parse(&content).with_context(what)?;
        if thim.tcb != wanted.tcb {
            // After an update of the firmware it is behind; the checks say whether it matters.
            let (theirs, ours) = (hex::encode(thim.tcb), hex::encode(wanted.tcb));
            let path = path.display();
            eprintln!("kata-cc: {path} is for the TCB {theirs}, the report is of {ours}");
        }
        thim.endorsements
    } else {
        Endorsements::parse(&content).with_context(what)?
    };
    if found.certificates().is_empty() && found.crls().is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(found)
}

fn lists(path: &Path) -> Result<Endorsements> {
    let content = bounded(path, MAX_CERTIFICATES_LEN)?;
    let mut found = Endorsements::default();
    let added = found.add_crl(&content);
    added.with_context(|| format!("the revocation list {}", path.display()))?;
    if found.crls().is_empty() {
        bail!("{} holds no revocation list", path.display());
    }
    Ok(found)
}

fn add_all(endorsements: &mut Endorsements, found: &Endorsements) -> Result<()> {
    for certificate in found.certificates() {
        endorsements.add(certificate.as_der())?;
    }
    for list in found.crls() {
        endorsements.add_crl(list.as_der())?;
    }
    Ok(())
}
