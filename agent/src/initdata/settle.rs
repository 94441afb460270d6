//! From what was found to where the guest stands: every combination, in one place.

use std::{error::Error, io};

use agent_evidence::{
    HostData, Sha256Digest,
    log::{EventError, InitdataEntry, PolicyEntry, PolicySource},
    snp::OwnReportError,
};
use agent_protocol::initdata::{Initdata, POLICY_ENTRY, PolicyError, PolicyText};
use thiserror::Error;

use super::disks::ScanError;
use crate::{
    judge::{NOT_EVALUATED, Standing},
    measured::Measured,
};

/// Why the guest does not know what its launch binds.
#[derive(Debug, Error)]
pub(super) enum BoundError {
    /// A TEE, but nothing that makes reports.
    #[error("the guest runs in a TEE whose reports cannot be had")]
    NoReports,
    /// The report.
    #[error(transparent)]
    Report(#[from] OwnReportError),
}

/// Why initdata that was found is not taken.
#[derive(Debug, Error)]
enum TakeError {
    #[error(
        "initdata has the digest {found}, which fits to {fitted}, but the launch binds {bound}"
    )]
    Digest {
        found: String,
        fitted: HostData,
        bound: HostData,
    },
    #[error("initdata cannot be measured")]
    Log(#[from] EventError),
    #[error("initdata cannot be laid out in the guest")]
    Files(#[source] io::Error),
    #[error("the policy in initdata cannot be used")]
    Policy(#[from] PolicyError),
}

/// Decides where the guest stands; takes and lays out what there is to take.
pub(super) fn settle(
    bound: Result<Option<HostData>, BoundError>,
    found: Result<Option<Initdata>, ScanError>,
    log: &Measured,
    lay_out: impl FnOnce(&Initdata) -> io::Result<()>,
) -> Standing {
    let bound = match bound {
        Ok(bound) => bound,
        Err(error) => return refused(&error),
    };
    match (bound, found) {
        (_, Err(error)) => refused(&error),
        (Some(bound), Ok(None)) if bound != HostData::ZERO => Standing::Awaiting(bound),
        (bound, Ok(None)) => Standing::Open { bound },
        (bound, Ok(Some(document))) => match take(&document, bound, log, lay_out) {
            Ok(standing) => standing,
            Err(error) => refused(&error),
        },
    }
}

fn take(
    document: &Initdata,
    bound: Option<HostData>,
    log: &Measured,
    lay_out: impl FnOnce(&Initdata) -> io::Result<()>,
) -> Result<Standing, TakeError> {
    let digest = document.digest();
    let fitted = HostData(digest.host_data());
    if let Some(bound) = bound
        && bound != fitted
    {
        let found = digest.to_string();
        return Err(TakeError::Digest {
            found,
            fitted,
            bound,
        });
    }
    log.note(InitdataEntry {
        algorithm: digest.algorithm().name().to_owned(),
        digest: digest.to_string(),
        bound: bound.is_some(),
    })?;
    let policy = document.entries().get(POLICY_ENTRY);
    let policy = policy.map(|text| PolicyText::parse(text)).transpose()?;
    if let Some(policy) = &policy {
        log.note(PolicyEntry {
            source: PolicySource::Initdata,
            digest: Sha256Digest(policy.host_data()),
            bound: bound.is_some(),
        })?;
    }
    lay_out(document).map_err(TakeError::Files)?;
    Ok(match policy {
        Some(_) => Standing::Refused(NOT_EVALUATED.to_owned()),
        None => Standing::Configured,
    })
}

fn refused(error: &dyn Error) -> Standing {
    Standing::Refused(crate::rpc::sentence(error))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use agent_evidence::log::Entry;
    use agent_protocol::initdata::{Algorithm, write};

    use super::*;

    fn document(name: &str) -> Initdata {
        let entries = BTreeMap::from([(name.to_owned(), "x = 1\n".to_owned())]);
        write(Algorithm::Sha384, &entries).unwrap()
    }

    fn settled(
        bound: Result<Option<HostData>, BoundError>,
        found: Result<Option<Initdata>, ScanError>,
    ) -> (Standing, Vec<Entry>, bool) {
        let log = Measured::default();
        let mut laid_out = false;
        let standing = settle(bound, found, &log, |_| {
            laid_out = true;
            Ok(())
        });
        let log = log.so_far();
        let events = log.events().iter();
        let entries = events.map(|event| Entry::of(event).unwrap().unwrap());
        (standing, entries.collect(), laid_out)
    }

    fn reason(standing: Standing) -> String {
        match standing {
            Standing::Refused(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn initdata_that_the_launch_binds_is_taken_measured_and_laid_out() {
        let document = document("aa.toml");
        let digest = document.digest();
        let bound = HostData(digest.host_data());
        let (standing, entries, laid_out) = settled(Ok(Some(bound)), Ok(Some(document)));
        assert_eq!(standing, Standing::Configured);
        assert!(laid_out);
        let expected = InitdataEntry {
            algorithm: "sha384".to_owned(),
            digest: digest.to_string(),
            bound: true,
        };
        assert_eq!(entries, [expected.into()]);
    }

    #[test]
    fn initdata_of_another_digest_is_refused_unmeasured_and_unused() {
        for bound in [HostData::ZERO, HostData([1; 32])] {
            let found = Ok(Some(document("aa.toml")));
            let (standing, entries, laid_out) = settled(Ok(Some(bound)), found);
            assert!(reason(standing).contains(&bound.to_string()));
            assert_eq!(entries, []);
            assert!(!laid_out);
        }
    }

    #[test]
    fn a_bound_launch_without_initdata_waits_for_its_policy() {
        let bound = HostData([1; 32]);
        let (standing, ..) = settled(Ok(Some(bound)), Ok(None));
        assert_eq!(standing, Standing::Awaiting(bound));
    }

    #[test]
    fn a_launch_that_binds_nothing_and_gets_nothing_is_open() {
        for bound in [None, Some(HostData::ZERO)] {
            let (standing, ..) = settled(Ok(bound), Ok(None));
            assert_eq!(standing, Standing::Open { bound });
        }
    }

    #[test]
    fn without_a_tee_initdata_is_taken_as_it_is_and_the_log_says_so() {
        let (standing, entries, _) = settled(Ok(None), Ok(Some(document("aa.toml"))));
        assert_eq!(standing, Standing::Configured);
        assert!(matches!(
            &entries[..],
            [Entry::Initdata(InitdataEntry { bound: false, .. })]
        ));
    }

    #[test]
    fn a_policy_in_initdata_is_measured_and_closes_the_guest() {
        let (standing, entries, laid_out) = settled(Ok(None), Ok(Some(document("policy.rego"))));
        assert_eq!(reason(standing), NOT_EVALUATED);
        assert!(matches!(
            &entries[..],
            [
                Entry::Initdata(_),
                Entry::Policy(PolicyEntry {
                    source: PolicySource::Initdata,
                    ..
                })
            ]
        ));
        assert!(laid_out);
    }

    #[test]
    fn every_doubt_refuses() {
        let (standing, ..) = settled(Ok(None), Err(ScanError::Several(2)));
        assert!(reason(standing).contains("2 disks"));
        let (standing, ..) = settled(Err(BoundError::NoReports), Ok(None));
        assert!(reason(standing).contains("cannot be had"));
        let stale = BoundError::Report(OwnReportError::Stale);
        let (standing, entries, _) = settled(Err(stale), Ok(Some(document("aa.toml"))));
        assert!(reason(standing).contains("own report"));
        assert_eq!(entries, []);
        let standing = settle(
            Ok(None),
            Ok(Some(document("aa.toml"))),
            &Measured::default(),
            |_| Err(io::Error::other("no room")),
        );
        assert!(reason(standing).ends_with("no room"));
    }
}
