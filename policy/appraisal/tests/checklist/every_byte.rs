//! No byte of a report is without a check.

use policy_appraisal::Check;

use super::{
    owner::only_signed,
    support::{refusals, scene::Scene},
};

/// Fields that are compared whole: each byte, changed and signed again, refuses.
#[test]
fn every_byte_of_every_field_is_refused_by_its_check() {
    let fields: &[(usize, usize, &[Check])] = &[
        (0x30, 4, &[Check::Vmpl]),
        (0x4C, 4, &[Check::Format]),
        (0x50, 64, &[Check::ReportData]),
        (0xC0, 32, &[Check::HostData]),
        (0x160, 32, &[Check::Migration]),
        (0x18B, 21, &[Check::Format]),
        (0x1A0, 64, &[Check::ChipId]),
        (0x1EB, 1, &[Check::Format]),
        (0x1EF, 1, &[Check::Format]),
        (0x208, 152, &[Check::Format]),
        (0x90, 48, &[Check::GuestIdentity]),
        (0x330, 368, &[Check::Format]),
    ];
    judge_bytes(&Scene::genoa(), fields);
    let mut signed = Scene::genoa();
    only_signed(&mut signed);
    let identity: &[(usize, usize, &[Check])] = &[
        (0x10, 16, &[Check::GuestIdentity]),
        (0x20, 16, &[Check::GuestIdentity]),
        (0xE0, 48, &[Check::GuestIdentity]),
        (0x110, 48, &[Check::GuestIdentity]),
    ];
    judge_bytes(&signed, identity);
}

fn judge_bytes(scene: &Scene, fields: &[(usize, usize, &[Check])]) {
    let (endorsements, roots) = (scene.endorsements(), scene.roots());
    for (offset, size, wanted) in fields {
        for place in *offset..offset + size {
            let mut report = scene.report;
            report[place] ^= 0x55;
            scene.chip.sign(&mut report);
            let report = policy_appraisal::snp::UnverifiedReport::parse(&report).unwrap();
            let verdict =
                match report.authenticate(&endorsements, &roots, &scene.references, scene.at) {
                    Ok(authentic) => authentic.appraise(&scene.references, &scene.expected),
                    Err(refused) => refused,
                };
            assert_eq!(refusals(&verdict), *wanted, "offset {place:#x}\n{verdict}");
        }
    }
}

/// The host can change a report, but not sign it.
#[test]
fn every_flipped_byte_is_refused_by_the_signature() {
    let scene = Scene::genoa();
    let (endorsements, roots) = (scene.endorsements(), scene.roots());
    let signed = scene.signed();
    for place in 0..0x330 {
        let mut report = signed;
        report[place] ^= 0x01;
        let report = policy_appraisal::snp::UnverifiedReport::parse(&report).unwrap();
        let refused = report
            .authenticate(&endorsements, &roots, &scene.references, scene.at)
            .unwrap_err();
        assert_eq!(refusals(&refused), [Check::Signature], "offset {place:#x}");
    }
}
