//! From what was found to where the guest stands: every combination, in one place.

use std::io;

use agent_evidence::{
    HostData, Sha256Digest,
    log::{InitdataEntry, PolicyEntry, PolicySource},
};
use agent_measured::Measured;
use agent_protocol::initdata::{
    Algorithm, DOCUMENT_ENTRY, Digest, Initdata, POLICY_ENTRY, PolicyText,
};
use policy_engine::Engine;

use super::error::{BoundError, ScanError, TakeError};
use crate::{
    judge::{Standing, load},
    told,
};

/// What binds initdata to the launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// Nothing: there is no TEE.
    Nothing,
    /// `HOST_DATA` of the guest's own report.
    HostData(HostData),
    /// A PCR of the paravisor's TPM, into which it is measured now.
    Register,
}

/// Decides where the guest stands; takes and lays out what there is to take.
pub(super) fn settle(
    bound: Result<Bound, BoundError>,
    found: Result<Option<Initdata>, ScanError>,
    log: &Measured,
    lay_out: impl FnOnce(&Initdata) -> io::Result<()>,
) -> Standing {
    let bound = match bound {
        Ok(bound) => bound,
        Err(error) => return Standing::Refused(told::bound(&error)),
    };
    match (bound, found) {
        (_, Err(error)) => Standing::Refused(told::scan(&error)),
        (Bound::HostData(bound), Ok(None)) if bound != HostData::ZERO => Standing::Awaiting(bound),
        (Bound::HostData(bound), Ok(None)) => Standing::Open { bound: Some(bound) },
        (Bound::Nothing | Bound::Register, Ok(None)) => Standing::Open { bound: None },
        (bound, Ok(Some(document))) => match take(&document, bound, log, lay_out) {
            Ok(standing) => standing,
            Err(error) => Standing::Refused(told::take(&error)),
        },
    }
}

fn take(
    document: &Initdata,
    bound: Bound,
    log: &Measured,
    lay_out: impl FnOnce(&Initdata) -> io::Result<()>,
) -> Result<Standing, TakeError> {
    let digest = document.digest();
    let is_bound = bound != Bound::Nothing;
    bind(&digest, bound, log)?;
    log.note(InitdataEntry {
        algorithm: digest.algorithm().name().to_owned(),
        digest: digest.to_string(),
        bound: is_bound,
    })?;
    let standing = standing(document, is_bound, log)?;
    lay_out(document).map_err(TakeError::Files)?;
    Ok(standing)
}

/// What the policy in initdata, if there is one, leads to; it is measured.
fn standing(document: &Initdata, bound: bool, log: &Measured) -> Result<Standing, TakeError> {
    let entry = |name: &str| document.entries().get(name);
    let (text, is_document) = match (entry(DOCUMENT_ENTRY), entry(POLICY_ENTRY)) {
        (None, None) => return Ok(Standing::Configured),
        (Some(_), Some(_)) => return Err(TakeError::TwoPolicies),
        (Some(text), None) => (text, true),
        (None, Some(text)) => (text, false),
    };
    // Neither is taken for the other.
    if is_document != text.starts_with('{') {
        return Err(TakeError::OtherPolicy);
    }
    let text = PolicyText::parse(text)?;
    let loaded = load(text.as_str());
    log.note(PolicyEntry {
        source: PolicySource::Initdata,
        digest: Sha256Digest(text.host_data()),
        bound,
        version: loaded.as_ref().ok().and_then(Engine::version),
    })?;
    Ok(match loaded {
        Ok(_) => Standing::Policy(text),
        Err(why) => Standing::Refused(why),
    })
}

/// Holds the digest against what the launch binds, or has the paravisor's TPM bind it.
fn bind(digest: &Digest, bound: Bound, log: &Measured) -> Result<(), TakeError> {
    let fitted = HostData(digest.host_data());
    match bound {
        Bound::HostData(bound) if bound != fitted => Err(TakeError::Digest {
            found: digest.to_string(),
            fitted,
            bound,
        }),
        Bound::Nothing | Bound::HostData(_) => Ok(()),
        Bound::Register => match digest.algorithm() {
            Algorithm::Sha256 => Ok(log.bind_initdata(Sha256Digest(fitted.0))?),
            other => Err(TakeError::Algorithm {
                found: other.name(),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    use agent_evidence::{
        log::{Entry, EventDigests, MeasurementLog},
        snp::OwnReportError,
        tee::tpm::{Register, TpmError},
    };
    use agent_protocol::initdata::write;

    use super::*;

    fn document(name: &str) -> Initdata {
        document_by(Algorithm::Sha384, name)
    }

    fn document_by(algorithm: Algorithm, name: &str) -> Initdata {
        let entries = BTreeMap::from([(name.to_owned(), "x = 1\n".to_owned())]);
        write(algorithm, &entries).unwrap()
    }

    /// Keeps what was extended, and fails when it is told to.
    #[derive(Debug, Default)]
    struct Kept {
        extended: Mutex<Vec<&'static str>>,
        initdata: Mutex<Option<Sha256Digest>>,
        fails: bool,
    }

    impl Kept {
        fn done(&self, what: &'static str) -> Result<(), TpmError> {
            if self.fails {
                return Err(TpmError::Pcrs);
            }
            self.extended.lock().unwrap().push(what);
            Ok(())
        }
    }

    impl Register for Kept {
        fn extend(&self, _: &EventDigests) -> Result<(), TpmError> {
            self.done("entry")
        }

        fn extend_initdata(&self, digest: Sha256Digest) -> Result<(), TpmError> {
            *self.initdata.lock().unwrap() = Some(digest);
            self.done("initdata")
        }
    }

    fn settled_under_a_paravisor(
        kept: &Arc<Kept>,
        document: Initdata,
    ) -> (Standing, MeasurementLog, bool) {
        let log = Measured::with(Some(Arc::clone(kept) as Arc<dyn Register>));
        let mut laid_out = false;
        let standing = settle(Ok(Bound::Register), Ok(Some(document)), &log, |_| {
            laid_out = true;
            Ok(())
        });
        (standing, log.so_far(), laid_out)
    }

    #[test]
    fn under_a_paravisor_initdata_go_into_the_tpm_before_they_are_used() {
        let document = document_by(Algorithm::Sha256, "aa.toml");
        let digest = Sha256Digest(document.digest().host_data());
        let kept = Arc::new(Kept::default());
        let (standing, log, laid_out) = settled_under_a_paravisor(&kept, document);
        assert_eq!(standing, Standing::Configured);
        assert!(laid_out);
        assert_eq!(*kept.initdata.lock().unwrap(), Some(digest));
        assert_eq!(*kept.extended.lock().unwrap(), ["initdata", "entry"]);
        assert!(matches!(
            Entry::of(&log.events()[0]).unwrap().unwrap(),
            Entry::Initdata(InitdataEntry { bound: true, .. })
        ));
    }

    #[test]
    fn under_a_paravisor_initdata_that_its_tpm_does_not_take_are_not_used() {
        let kept = Arc::new(Kept::default());
        let (standing, log, laid_out) = settled_under_a_paravisor(&kept, document("aa.toml"));
        assert!(reason(standing).contains("takes sha256 only"));
        assert!(!laid_out && log.events().is_empty() && kept.extended.lock().unwrap().is_empty());

        let fails = Kept {
            fails: true,
            ..Kept::default()
        };
        let document = document_by(Algorithm::Sha256, "aa.toml");
        let (standing, log, laid_out) = settled_under_a_paravisor(&Arc::new(fails), document);
        assert!(reason(standing).contains("paravisor's tpm"));
        assert!(!laid_out && log.events().is_empty());
    }

    fn settled(
        bound: Result<Bound, BoundError>,
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
            Standing::Refused(reason) => reason.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn initdata_that_the_launch_binds_is_taken_measured_and_laid_out() {
        let document = document("aa.toml");
        let digest = document.digest();
        let bound = HostData(digest.host_data());
        let (standing, entries, laid_out) = settled(Ok(Bound::HostData(bound)), Ok(Some(document)));
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
            let (standing, entries, laid_out) = settled(Ok(Bound::HostData(bound)), found);
            assert!(reason(standing).contains(&bound.to_string()));
            assert_eq!(entries, []);
            assert!(!laid_out);
        }
    }

    #[test]
    fn a_bound_launch_without_initdata_waits_for_its_policy() {
        let bound = HostData([1; 32]);
        let (standing, ..) = settled(Ok(Bound::HostData(bound)), Ok(None));
        assert_eq!(standing, Standing::Awaiting(bound));
    }

    #[test]
    fn a_launch_that_binds_nothing_and_gets_nothing_is_open() {
        let zero = HostData::ZERO;
        for (bound, open) in [
            (Bound::Nothing, None),
            (Bound::HostData(zero), Some(zero)),
            (Bound::Register, None),
        ] {
            let (standing, ..) = settled(Ok(bound), Ok(None));
            assert_eq!(standing, Standing::Open { bound: open });
        }
    }

    #[test]
    fn without_a_tee_initdata_is_taken_as_it_is_and_the_log_says_so() {
        let (standing, entries, _) = settled(Ok(Bound::Nothing), Ok(Some(document("aa.toml"))));
        assert_eq!(standing, Standing::Configured);
        assert!(matches!(
            &entries[..],
            [Entry::Initdata(InitdataEntry { bound: false, .. })]
        ));
    }

    #[test]
    fn a_policy_in_initdata_is_measured_and_closes_the_guest() {
        let (standing, entries, laid_out) =
            settled(Ok(Bound::Nothing), Ok(Some(document("policy.rego"))));
        assert!(reason(standing).contains("not of the package agent_policy"));
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

    fn with(entries: &[(&str, &str)]) -> Initdata {
        let entries = entries
            .iter()
            .map(|&(name, text)| (name.to_owned(), text.to_owned()));
        write(Algorithm::Sha256, &entries.collect()).unwrap()
    }

    #[test]
    fn a_policy_document_in_initdata_is_in_force_and_two_policies_are_none() {
        let rules = policy_engine::rules_digest_hex();
        let text = format!(r#"{{"containers":[],"rules":["{rules}"],"version":2}}"#);
        let of = |entries: &[(&str, &str)]| settled(Ok(Bound::Nothing), Ok(Some(with(entries))));
        let (standing, entries, _) = of(&[("pod-policy.json", &text)]);
        assert_eq!(
            standing,
            Standing::Policy(PolicyText::parse(&text).unwrap())
        );
        assert!(matches!(
            &entries[..],
            [
                Entry::Initdata(_),
                Entry::Policy(PolicyEntry {
                    version: Some(2),
                    ..
                })
            ]
        ));
        let rego = "package agent_policy\n";
        let (standing, ..) = of(&[("pod-policy.json", &text), ("policy.rego", rego)]);
        assert!(reason(standing).contains("two policies"));
        for (name, text) in [("pod-policy.json", rego), ("policy.rego", text.as_str())] {
            let (standing, ..) = of(&[(name, text)]);
            assert!(reason(standing).contains("begin with a brace"), "{name}");
        }
        let (standing, ..) = of(&[("pod-policy.json", &text.replace(&rules, &"ab".repeat(32)))]);
        assert!(reason(standing).contains("other rules"));
    }

    #[test]
    fn every_doubt_refuses() {
        let (standing, ..) = settled(Ok(Bound::Nothing), Err(ScanError::Several(2)));
        assert!(reason(standing).contains("2 disks"));
        let (standing, ..) = settled(Err(BoundError::NoReports), Ok(None));
        assert!(reason(standing).contains("cannot be had"));
        let stale = BoundError::Report(OwnReportError::Stale);
        let (standing, entries, _) = settled(Err(stale), Ok(Some(document("aa.toml"))));
        assert!(reason(standing).contains("own report"));
        assert_eq!(entries, []);
        let standing = settle(
            Ok(Bound::Nothing),
            Ok(Some(document("aa.toml"))),
            &Measured::default(),
            |_| Err(io::Error::from_raw_os_error(28)),
        );
        assert!(reason(standing).ends_with("No space left on device"));
    }
}
