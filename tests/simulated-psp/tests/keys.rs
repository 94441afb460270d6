//! The agent's own client asks the owner's own broker.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

/// A broker, and what its own tests make reports with.
#[path = "../../../policy/broker/tests/bed/mod.rs"]
mod bed;

use std::{sync::Arc, thread};

use agent_evidence::{
    Obtained, ReportData,
    tee::{Tee, TeeError, TeeKind},
};
use agent_keys::{KeyError, KeyProvider, ResourceUri};
use agent_keys_broker::{Address, Broker, Guest};
use tests_simulated_psp::serve::{ASK, VCEK, table_of};

use self::bed::{Bed, HOST_DATA, KEY, MEASUREMENT, NAME, log, support::scene::Scene};

/// The processor of a guest whose report differs in one byte, or in none.
struct Processor {
    scene: Scene,
    changed: Option<usize>,
}

impl Tee for Processor {
    fn kind(&self) -> TeeKind {
        TeeKind::Snp
    }

    fn obtain(&self, report_data: &ReportData) -> Result<Obtained, TeeError> {
        let mut report = self.scene.report;
        report[0x50..0x90].copy_from_slice(&report_data.0);
        if let Some(at) = self.changed {
            report[at] ^= 1;
        }
        self.scene.chip.sign(&mut report);
        let certificates = [
            (VCEK, self.scene.leaf.build()),
            (ASK, self.scene.issuer.build()),
        ];
        Ok(Obtained {
            report: report.to_vec(),
            certificates: table_of(&certificates).unwrap(),
        })
    }
}

fn guest(bed: &Bed, changed: Option<usize>, is_bound: bool) -> Broker {
    let url = bed.url.strip_suffix("/kbs/v0").unwrap();
    let certificate = &bed.certificate;
    let aa = format!("[token_configs.kbs]\nurl = \"{url}\"\ncert = \"\"\"{certificate}\"\"\"\n");
    let mut scene = Scene::genoa();
    scene.report = bed.scene.report;
    Broker::new(
        Address::parse(&aa).unwrap().unwrap(),
        Guest {
            hardware: Some(Arc::new(Processor { scene, changed })),
            log: Box::new(move || Some(log(is_bound, 1))),
            initdata: None,
        },
    )
}

fn uri(name: &str) -> ResourceUri {
    ResourceUri::parse(&format!("kbs:///{name}")).unwrap()
}

#[test]
fn ten_keys_at_once_cost_a_genuine_guest_one_attestation() {
    let bed = Bed::new("");
    let guest = guest(&bed, None, true);
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(guest.fetch(&uri(NAME)).unwrap().expose(), KEY));
        }
    });
    let absent = guest.fetch(&uri("default/key/none"));
    assert!(matches!(absent, Err(KeyError::Absent(_))), "{absent:?}");
    assert_eq!(guest.attestations(), 1);
}

#[test]
fn a_guest_that_booted_something_else_hears_no_and_gets_no_key() {
    let bed = Bed::new("");
    for (changed, is_bound) in [
        (Some(MEASUREMENT), true),
        (Some(HOST_DATA), true),
        (None, false),
    ] {
        let guest = guest(&bed, changed, is_bound);
        let refused = guest.fetch(&uri(NAME));
        assert!(
            matches!(refused, Err(KeyError::Refused { .. })),
            "{changed:?}: {refused:?}"
        );
        assert_eq!(guest.attestations(), 0);
    }
}
